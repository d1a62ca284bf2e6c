#!/usr/bin/env python3
"""Puts load on `tieline serve` in front of a scripted vendor: idle connections, many streams, slow readers, heads and
bodies that never end, ten times too many requests. Prints JSON.

What must hold whatever the machine does is asserted: every answer is whole and its caller's own, what is refused says
when to come again, nothing is lost, memory stays under a bound, health is answered throughout, the server ends in good
order. Times are told and not judged. Linux only: clients come from many addresses of 127.0.0.0/8.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from client import ask, connect, read_body, read_head, request, whole  # noqa: E402
from upstream import Upstream  # noqa: E402

# The server's limits; docs/security-server.md.
CONNECTIONS, OF_A_KEY, AT_ONCE = 512, 16, 256
HEAD_S, BODY_S, STALL_S = 10, 15, 30
SPARE_S = 60  # beyond a limit's own time, for a busy machine
MIB = 1 << 20
HEALTH_MS = 50  # wanted of the slowest in a hundred; told, not judged

POLICY = """
[backends.mock]
protocol = "openai"
url = "http://127.0.0.1:{port}/v1"
zone = "cloud"

[backends.mock.models.mock]
context = 100000

[[rule]]
name = "all of it"
class = "internal"
zone = "cloud"
as = "as-is"
"""


class Server:
    """`tieline serve`, its memory and its health."""

    def __init__(self, program, folder, upstream_port):
        policy = folder / "policy.toml"
        policy.write_text(POLICY.format(port=upstream_port))
        self.environment = {
            "TIELINE_HOME": str(folder / "home"),
            "TIELINE_POLICY": str(policy),
            "TIELINE_LOG": "warn",
            "PATH": os.environ["PATH"],
        }
        self.program, self.port, self.process = program, free_port(), None
        self.latencies_ms, self.peak_bytes, self.ill = [], 0, []
        self.anew_ms, self.turned_away = [], 0
        self.log = open(folder / "log", "w+b")

    async def __aenter__(self):
        made = [self.program, "key", "create", "load", "--json"]
        told = subprocess.run(made, env=self.environment, check=True, capture_output=True, text=True).stdout
        self.key = json.loads(told)["key"]
        words = [self.program, "serve", "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(words, env=self.environment, stderr=self.log, stdout=self.log)
        async with asyncio.timeout(SPARE_S):
            while not await self.healthy():
                if self.process.poll() is not None:
                    self.log.seek(0)
                    raise SystemExit(f"tieline serve ended: {self.log.read().decode()}")
                await asyncio.sleep(0.05)
        self.watching = [asyncio.create_task(self.watch()), asyncio.create_task(self.watch_anew())]
        return self

    async def __aexit__(self, *_):
        for task in self.watching:
            task.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    async def healthy(self):
        try:
            return (await self.get("/livez")).status == 200
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def get(self, path):
        reader, writer = await connect(self.port, "127.0.0.9")
        try:
            writer.write(get(self.port, path))
            answer = await read_head(reader)
            await read_body_text(reader, answer)
            return answer
        finally:
            writer.close()

    async def watch(self):
        """Asks for health on one connection that is kept, as a probe beside a full house must have it."""
        reader, writer = await connect(self.port, "127.0.0.9")
        while True:
            begun = time.monotonic()
            try:
                writer.write(get(self.port, "/livez"))
                answer = await read_head(reader)
                await read_body_text(reader, answer)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.ill.append(repr(error))
                return
            self.latencies_ms.append((time.monotonic() - begun) * 1000)
            if answer.status != 200:
                self.ill.append(answer.status)
            self.peak_bytes = max(self.peak_bytes, self.resident_bytes())
            await asyncio.sleep(0.1)

    async def watch_anew(self):
        """Asks for health on a new connection each time, as most probes do. A full house may turn one away."""
        while True:
            begun = time.monotonic()
            try:
                answer = await asyncio.wait_for(self.get("/livez"), 5)
                self.turned_away += answer.status != 200
                self.anew_ms.append((time.monotonic() - begun) * 1000)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.turned_away += 1
            await asyncio.sleep(0.1)

    def told_of_health(self):
        """What both probes saw since the last time they were asked."""
        told = {"kept_connection_ms": spread(self.latencies_ms), "new_connections_ms": spread(self.anew_ms),
                "new_connections_turned_away": self.turned_away}
        for name in ("kept_connection_ms", "new_connections_ms"):
            told[name]["p99_under_50_ms"] = told[name]["p99"] < HEALTH_MS
        self.latencies_ms, self.anew_ms, self.turned_away = [], [], 0
        return told

    def resident_bytes(self):
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def metric(self, name):
        lines = (await self.get("/metrics")).text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    async def end(self):
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), SPARE_S)


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()


async def read_body_text(reader, answer):
    if "content-length" in answer.fields:
        return await read_body(reader, answer)
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    answer.text = b"".join(parts).decode()


def addresses(group, count, each):
    """So many clients, `each` of them from one address."""
    return [f"127.{group}.0.{1 + number // each}" for number in range(count)]


def holds(claim, **facts):
    if not claim:
        raise AssertionError(f"does not hold: {facts}")


async def closed(reader, limit_s):
    """Waits until the server closes; tells what it sent before."""
    async with asyncio.timeout(limit_s):
        try:
            return await reader.read()
        except OSError:
            return b""


async def idle(server, upstream):
    """A thousand connections that say nothing, and a hundred from one address."""
    told = {}
    for name, places, most in [
        ("from_one", addresses(1, 100, 100), 100),
        ("from_twenty", addresses(8, 1000, 50), CONNECTIONS),
    ]:
        opened = [await connect(server.port, place) for place in places]
        # A read is what notices the end.
        ends = [asyncio.create_task(closed(reader, HEAD_S + SPARE_S)) for reader, _ in opened]
        await asyncio.sleep(1)
        kept = sum(not reader.at_eof() for reader, _ in opened)
        await asyncio.gather(*ends)
        for _, writer in opened:
            writer.close()
        holds(0 < kept <= most, of=name, kept=kept)
        told[name] = {"asked": len(places), "open_at_once": kept, "closed_by_the_server": len(ends)}
    holds(await server.healthy(), after="idle connections were closed")
    return told


async def crowd(server, upstream):
    """All places taken by streams; one more is refused; then all end whole."""
    wants = [{"tag": f"crowd{number}", "pieces": 20, "gate": "crowd"} for number in range(AT_ONCE)]
    places = addresses(2, AT_ONCE, 32)
    asked = [asyncio.create_task(ask(server.port, place, want)) for place, want in zip(places, wants)]
    await upstream.until_arrived("crowd", AT_ONCE, SPARE_S)
    more = await ask(server.port, "127.2.1.1", {"tag": "more", "pieces": 1})
    upstream.gate("crowd").set()
    answers = await asyncio.gather(*asked)
    good = sum(map(whole, answers, wants))
    holds(good == AT_ONCE, whole=good, statuses=statuses(answers))
    holds((more.status, more.fields.get("retry-after", "0") >= "1") == (503, True), one_more=more.status)
    return {"streams": AT_ONCE, "whole": good, "one_more": more.status}


async def slow_readers(server, upstream):
    """Long answers that nobody reads for a while; a few that nobody ever reads."""
    # Longer than what the system's own buffers hold of each.
    count, never, size, pieces = 8, 4, 16384, 2048
    stalled, given_up = asyncio.Event(), asyncio.Event()
    wants = [{"tag": f"slow{number}", "pieces": pieces, "bytes": size} for number in range(count)]
    asked = [
        asyncio.create_task(ask(server.port, "127.3.0.1", want, receive_bytes=4096, stalled=stalled)) for want in wants
    ]
    before = server.resident_bytes()
    never_wants = [{"tag": f"never{number}", "pieces": pieces, "bytes": size} for number in range(never)]
    never_asked = [
        asyncio.create_task(ask(server.port, "127.3.0.2", want, receive_bytes=4096, stalled=given_up))
        for want in never_wants
    ]
    await asyncio.sleep(STALL_S / 4)
    sent = sum(upstream.sent_bytes.get(want["tag"], 0) for want in wants)
    grown = server.resident_bytes() - before
    stalled.set()
    answers = await asyncio.gather(*asked)
    good = sum(map(whole, answers, wants))
    broken = upstream.broken
    async with asyncio.timeout(STALL_S + SPARE_S):
        while upstream.broken < broken + never:
            await asyncio.sleep(0.1)
    given_up.set()
    cut = await asyncio.gather(*never_asked)
    total = count * pieces * size
    holds(good == count, whole=good, statuses=statuses(answers))
    holds(sent < total / 2, sent_before_reading=sent, all=total)
    holds(all(answer.ending != "done" for answer in cut), never_read=[answer.ending for answer in cut])
    return {
        "readers": count,
        "whole": good,
        "answers_bytes": total,
        "taken_of_the_vendor_before_reading_bytes": sent,
        "grown_by_bytes": grown,
        "never_read": never,
        "given_up_and_cancelled_at_the_vendor": upstream.broken - broken,
    }


async def drip(writer, data, ended):
    """A byte now and then."""
    for byte in data:
        if ended.is_set():
            return
        try:
            writer.write(bytes([byte]))
            await writer.drain()
        except OSError:
            return
        await asyncio.sleep(1)


async def slowloris(server, upstream):
    """Heads that come byte by byte, and bodies that stop; others are answered meanwhile."""
    head = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x-more: 1\r\n" * 1000
    half = request(server.port, {"tag": "half", "pieces": 1})[:-5]
    ended, ends, writers = asyncio.Event(), [], []
    tasks = []
    for address, data in [*((a, head) for a in addresses(4, 64, 32)), *((a, None) for a in addresses(5, 64, 32))]:
        reader, writer = await connect(server.port, address)
        writers.append(writer)
        if data is None:
            writer.write(half)
        else:
            tasks.append(asyncio.create_task(drip(writer, data, ended)))
        ends.append(asyncio.create_task(closed(reader, max(HEAD_S, BODY_S) + SPARE_S)))
    wants = [{"tag": f"beside{number}", "pieces": 20} for number in range(32)]
    answers = await asyncio.gather(*(ask(server.port, "127.6.0.1", want) for want in wants))
    said = await asyncio.gather(*ends)
    ended.set()
    await asyncio.gather(*tasks)
    for writer in writers:
        writer.close()
    told = sum(b" 408 " in text.split(b"\r\n")[0] for text in said[64:])
    good = sum(map(whole, answers, wants))
    holds(good == len(wants), whole=good)
    holds(told == 64, bodies_told_408=told)
    holds(upstream.arrived.get("half") is None, half_a_request="reached the vendor")
    return {"heads_closed": 64, "bodies_told_408": told, "answered_meanwhile": good}


async def overload(server, upstream):
    """Ten times what a key may have at once, then ten times what all may."""
    told = {}
    for name, most, key, at_a_time in [("key", OF_A_KEY, server.key, 10 * OF_A_KEY), ("all", AT_ONCE, None, AT_ONCE + 64)]:
        refused_before = await server.metric("tieline_connections_refused_total")
        again = collections.Counter()
        wants = [{"tag": f"{name}{number}", "pieces": 20, "gate": name} for number in range(10 * most)]
        room = asyncio.Semaphore(at_a_time)

        async def one(number, want):
            async with room:
                while True:
                    answer = await ask(server.port, f"127.7.0.{1 + number % 20}", want, key)
                    if answer.status and "as many connections" not in answer.text:
                        return answer
                    # No place for its connection; the server must have counted that.
                    again[name] += 1
                    await asyncio.sleep(0.05)

        asked = [asyncio.create_task(one(number, want)) for number, want in enumerate(wants)]
        # All that are refused are refused while those that are not are held.
        async with asyncio.timeout(SPARE_S):
            while sum(task.done() for task in asked) < len(asked) - most:
                await asyncio.sleep(0.05)
        upstream.gate(name).set()
        answers = await asyncio.gather(*asked)
        refused = [answer for answer in answers if answer.status != 200]
        good = sum(map(whole, answers, wants))
        status = 429 if key else 503
        polite = sum(answer.status == status and int(answer.fields.get("retry-after", 0)) >= 1 for answer in refused)
        holds((good, polite) == (most, 9 * most), whole=good, refused_politely=polite, statuses=statuses(answers))
        closed_at_once = await server.metric("tieline_connections_refused_total") - refused_before
        holds(again[name] == closed_at_once, turned_away=again[name], connections_refused=closed_at_once)
        told[name] = {"asked": 10 * most, "whole": good, "connections_refused": again[name], f"refused_{status}_with_retry_after": polite}
    return told


def statuses(answers):
    return dict(collections.Counter(f"{answer.status} {answer.ending}" for answer in answers))


SCENES = [idle, crowd, slow_readers, slowloris, overload]


def spread(values):
    values = sorted(values) or [float("inf")]
    at = lambda part: round(values[min(len(values) - 1, int(len(values) * part))], 2)  # noqa: E731
    return {"asked": len(values), "p50": at(0.5), "p99": at(0.99), "max": at(1)}


async def play(arguments, folder):
    upstream = Upstream()
    await upstream.start()
    told, failed = {"machine": os.uname().machine, "cores": os.cpu_count()}, []
    async with Server(arguments.tieline, folder, upstream.port) as server:
        # The question for it is one.
        quiet = await server.metric("tieline_requests_in_flight")
        told["rss_at_first_bytes"] = server.resident_bytes()
        for scene in SCENES:
            if arguments.only and scene.__name__ not in arguments.only:
                continue
            print(f"load: {scene.__doc__}", file=sys.stderr, flush=True)
            server.told_of_health()
            try:
                told[scene.__name__] = await scene(server, upstream)
            except (AssertionError, TimeoutError, OSError) as error:
                told[scene.__name__] = {"failed": f"{type(error).__name__}: {error}"}
                failed.append(scene.__name__)
            told[scene.__name__]["health"] = server.told_of_health()
            told[scene.__name__]["rss_bytes"] = server.resident_bytes()
        try:
            await asyncio.sleep(0.5)
            at_work, lost = await server.metric("tieline_requests_in_flight"), await server.metric("tieline_ledger_rows_lost")
            told["end"] = {"in_flight": at_work, "ledger_rows_lost": lost, "rss_peak_bytes": server.peak_bytes}
            holds(not server.ill, health=server.ill[:3])
            holds((at_work, lost) == (quiet, 0), in_flight=at_work, ledger_rows_lost=lost)
            holds(server.peak_bytes < arguments.memory_mib * MIB, rss_peak_bytes=server.peak_bytes)
            told["end"]["exit"] = await server.end()
            holds(told["end"]["exit"] == 0, exit=told["end"]["exit"])
        except (AssertionError, TimeoutError, OSError) as error:
            told["end"] = {**told.get("end", {}), "failed": f"{type(error).__name__}: {error}"}
            failed.append("end")
    told["failed"] = failed
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tieline", required=True, help="the program, built")
    parser.add_argument("--only", nargs="*", choices=[scene.__name__ for scene in SCENES], help="these scenes alone")
    parser.add_argument("--memory-mib", type=int, default=256, help="most memory that the server may ever have")
    arguments = parser.parse_args()
    # A thousand connections, and the vendor's ends of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(play(arguments, pathlib.Path(folder)))
    print(json.dumps(told, indent=2))
    return 1 if told["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
