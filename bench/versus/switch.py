#!/usr/bin/env python3
"""Measures changing between two models: Tieline's server against llama-server's router, and keeps every sample.

Three cases, both sides in turns: the first token after a switch where one model fits; the first token of a
program that is not started yet; and two models in turns where both fit, which must load each once.
Standard library only. Writes results/<date>-switch-<host>.json.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import backends  # noqa: E402
import peer  # noqa: E402
import run  # noqa: E402
import stats  # noqa: E402

CASES = ("switch", "cold", "alternate")
MODELS = ("one", "two")
CONTEXT = "2048"
# As it is: not every model has a template.
PROMPT = "The three longest rivers of Europe are"

NOTES = [
    "First token: from sending the request to the first piece of text, by one client on one clock, over HTTP, "
    "streamed, greedy, at most 8 tokens.",
    "switch: both sides may keep one model (ours by its budget in bytes, theirs by --models-max 1); each answer is "
    "by the other model than the one before. The files are in the system's cache.",
    "cold: from starting the server's process to the first token of its first answer. The files are in the "
    "system's cache.",
    "alternate: both models fit. Loads are processes that held a model, looked for after each answer.",
]


def main():
    options = arguments()
    run.wait_until_idle(options)
    load_before = os.getloadavg()[0]
    if load_before > run.MAX_LOAD and not options.force:
        sys.exit(f"versus: the load average is {load_before:.2f}: wait until it is under {run.MAX_LOAD}\n"
                 "hint: --force measures all the same and says so in the result")
    with tempfile.TemporaryDirectory(prefix="tieline-versus-") as scratch:
        folder = options.peer_dir or os.path.join(scratch, "peer")
        if not options.peer_dir:
            run.say(f"building {peer.PACKAGE} in {folder}: minutes")
            peer.install(folder)
            run.wait_until_idle(options)
        programs = peer.programs(folder)
        room = prepare(options, scratch)
        samples = {name: MEASURES[name](options, programs, room) for name in options.cases}
        result = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "machine": run.machine(), "forced": options.force, "rounds": options.rounds,
            "load_before": load_before, "load_after": os.getloadavg()[0], "threads": options.threads,
            "models": [{"name": os.path.basename(path), "bytes": os.path.getsize(path)} for path in options.models],
            "versions": {"ours": run.our_version(options.tieline), "theirs": peer.version(programs)},
            "notes": NOTES, "samples": samples,
        }
    result["summary"] = summarise(samples)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{result['date']}-switch-{platform.node() or 'host'}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for row in result["summary"]:
        print(words(row))
    run.say(f"wrote {path}")
    if any(row["verdict"] == "missed" for row in result["summary"]):
        sys.exit("versus: a target was missed")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tieline", default="target/release/tieline", help="the program to measure")
    parser.add_argument("--runner", default="target/release/tieline-runner")
    parser.add_argument("--models", nargs=2, required=True, metavar="FILE", help="two GGUF files")
    parser.add_argument("--peer-dir", help="an environment that already holds llama.cpp")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turns", type=int, default=100, help="answers of the case alternate")
    parser.add_argument("--cases", default=",".join(CASES), help="which, by commas")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine; recorded")
    options = parser.parse_args()
    options.cases = [name for name in options.cases.split(",") if name]
    if unknown := [name for name in options.cases if name not in CASES]:
        sys.exit(f"versus: no case {', '.join(unknown)}\nhint: there are {', '.join(CASES)}")
    for path in (options.tieline, options.runner, *options.models):
        if not os.path.isfile(path):
            sys.exit(f"versus: no file {path}")
    options.tieline, options.runner = os.path.abspath(options.tieline), os.path.abspath(options.runner)
    if options.rounds < stats.ENOUGH_ROUNDS and not options.force:
        sys.exit("versus: fewer than 5 rounds carry no interval\nhint: --force measures all the same")
    return options


def prepare(options, scratch):
    """A home of ours and a folder of theirs that hold the two models by the same names."""
    room = {"home": os.path.join(scratch, "home"), "models": os.path.join(scratch, "models")}
    os.makedirs(room["models"])
    for name, path in zip(MODELS, options.models):
        os.symlink(os.path.abspath(path), os.path.join(room["models"], f"{name}.gguf"))
        output([options.tieline, "pull", f"file:{os.path.abspath(path)}", "--name", name], ours(options, room))
    room["needs"] = [need(options, room, name) for name in MODELS]
    return room


def need(options, room, name):
    """What Tieline plans that a model takes, in bytes, but for copies of states, which give way where memory is short."""
    command = [options.tieline, "plan", name, "--ctx", CONTEXT, "--json"]
    plan = json.loads(output(command, ours(options, room)))
    return plan["needed_bytes"] - plan["plan"]["memory"]["copies"]


def output(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise backends.Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ours(options, room):
    return {**os.environ, "TIELINE_HOME": room["home"], "TIELINE_RUNNER": options.runner, "TIELINE_OFFLINE": "true"}


# --- the two sides ---------------------------------------------------------------------------

class Host:
    """A server with two models, on a free port of this machine."""

    def __init__(self, name, command, environment, address):
        self.name, self.command, self.environment, self.address = name, command, environment, address

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.started = backends.Log(), time.monotonic()
        self.process = subprocess.Popen(
            [*self.command, *self.address(self.port)], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=self.log.file, stderr=self.log.file)
        try:
            self._listens()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        held = self.holders()
        backends.end_process(self.process)
        self.log.close()
        for pid in held:
            backends.wait_for_end(pid)

    def _listens(self):
        deadline = time.monotonic() + backends.START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.005)
        raise backends.Failed(f"{self.name} did not come up: {self.log.last_words()}")

    def holders(self):
        """The processes that hold a model: the children that listen or compute for it."""
        return children(self.process.pid)

    def first_token(self, model):
        """When the first text of an answer came, on the clock of `started`."""
        body = {"model": model, "stream": True, "temperature": 0, "max_tokens": 8,
                "prompt": PROMPT}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=backends.DEADLINE_S)
        first = None
        try:
            reply = self._accepted(connection, json.dumps(body))
            if reply.status != 200:
                raise backends.Failed(f"{self.name}: status {reply.status}: {reply.read(500)!r}: {self.log.last_words()}")
            while line := reply.readline():
                if first is None and has_text(line):
                    first = time.monotonic()
        except (OSError, http.client.HTTPException) as error:
            raise backends.Failed(f"{self.name} is gone ({error!r}): {self.log.last_words()}") from error
        finally:
            connection.close()
        if first is None:
            raise backends.Failed(f"{self.name}: an answer without text")
        return first

    def _accepted(self, connection, body):
        """The reply, asked for again while the server says that it is not ready yet."""
        deadline = time.monotonic() + backends.START_S
        while True:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            if reply.status != 503 or time.monotonic() > deadline:
                return reply
            reply.read()
            time.sleep(0.005)


def hosts(options, programs, room, one_fits):
    """Both sides, with room for one model or for both."""
    needs = room["needs"]
    budget = max(needs) + min(needs) // 2 if one_fits else 2 * sum(needs)
    threads = ["--threads", str(options.threads)]
    server = programs["llama-server"]
    theirs = {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(server)}
    return {
        "ours": Host("tieline", [options.tieline, "serve", "--memory", f"{budget}B", "--ctx", CONTEXT, "--parallel", "1",
                                 "--prompt-cache", "off", *threads], ours(options, room),
                     lambda port: ["--listen", f"127.0.0.1:{port}"]),
        "theirs": Host("llama-server", [server, "--models-dir", room["models"], "--models-max", "1" if one_fits else "2",
                                        "-c", CONTEXT, "-np", "1", "--host", "127.0.0.1", "--no-ui", *threads], theirs,
                       lambda port: ["--port", str(port)]),
    }


# --- the cases -------------------------------------------------------------------------------

def switch(options, programs, room):
    """Seconds to the first token of the model that is not loaded."""
    samples = {"ours": [], "theirs": []}
    with contextlib.ExitStack() as stack:
        sides = {name: stack.enter_context(host) for name, host in hosts(options, programs, room, True).items()}
        for host in sides.values():
            for model in MODELS:
                host.first_token(model)
        for turn in range(options.rounds):
            for name in turned(sides, turn):
                before, begin = set(sides[name].holders()), time.monotonic()
                samples[name].append(sides[name].first_token(MODELS[turn % 2]) - begin)
                if not set(sides[name].holders()) - before:
                    raise backends.Failed(f"{name} had both models: that was no switch")
    return samples


def cold(options, programs, room):
    """Seconds from starting the program to its first token."""
    samples = {"ours": [], "theirs": []}
    sides = hosts(options, programs, room, False)
    # One that does not count: programs and files are in the system's cache afterwards.
    for turn in range(options.rounds + 1):
        for name in turned(sides, turn):
            with sides[name] as host:
                took = host.first_token(MODELS[0]) - host.started
            if turn:
                samples[name].append(took)
    return samples


def alternate(options, programs, room):
    """How many processes held a model while two took turns within the budget."""
    samples = {}
    for name, host in hosts(options, programs, room, False).items():
        with host:
            seen = set()
            for turn in range(options.turns):
                host.first_token(MODELS[turn % 2])
                seen |= set(host.holders())
            samples[name] = [len(seen)]
    return samples


MEASURES = {"switch": switch, "cold": cold, "alternate": alternate}


# --- pure ------------------------------------------------------------------------------------

def turned(sides, turn):
    """Neither side always runs on a machine that the other has warmed."""
    return list(sides)[:: -1 if turn % 2 else 1]


def has_text(line):
    """Whether a line of an event stream brings text of the answer."""
    if not line.startswith(b"data: {"):
        return False
    event = json.loads(line[6:])
    if "error" in event:
        raise backends.Failed(f"the answer failed: {event['error']}")
    return any(choice.get("text") for choice in event.get("choices") or [])


def children(pid):
    """The processes that this one started, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The program's name, in brackets, may hold anything.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def summarise(samples):
    """One row per case: medians, ratio with its interval, and what to make of it."""
    rows = []
    for case, sides in samples.items():
        row = {"case": case, "ours": statistics.median(sides["ours"]), "theirs": statistics.median(sides["theirs"])}
        if case == "alternate":
            row |= {"unit": "loads", "target": len(MODELS), "verdict": "met" if row["ours"] == len(MODELS) else "missed"}
        else:
            interval = stats.ratio(sides["ours"], sides["theirs"])
            row |= {"unit": "s", **interval, "verdict": stats.verdict(interval, False, len(sides["ours"]))}
        rows.append(row)
    return rows


def words(row):
    if "ratio" not in row:
        return f"{row['case']}: {row['ours']:.0f} {row['unit']}, llama-server {row['theirs']:.0f}; target {row['target']}: {row['verdict']}"
    return (f"{row['case']}: {row['ours']:.3f} {row['unit']} against {row['theirs']:.3f}: "
            f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {row['verdict']}")


if __name__ == "__main__":
    # An exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("versus: terminated"))
    try:
        main()
    except backends.Failed as failed:
        sys.exit(f"versus: {failed}")
