#!/usr/bin/env python3
"""What a gateway adds: each in front of the same upstream, in turns, with wrk; medians and intervals.

The upstream is crates/tieline-server/examples/instant.rs: it answers at once. Peers: gateways.py. Everything runs
in a network namespace of its own, so that nobody calls home. Needs wrk and unshare, and root for the namespace.
"""

import argparse
import fcntl
import json
import os
import pathlib
import random
import re
import socket
import statistics
import struct
import subprocess
import sys

import gateways

HERE = pathlib.Path(__file__).parent
CASES = [("1 connection", 1, False), ("8 connections", 8, False), ("8 streams of 20", 8, True)]
PROMPT = "What is the capital of France?"
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = struct.pack("16sh", b"lo", 0x1 | 0x40)
        fcntl.ioctl(control, 0x8914, up)


def alone():
    """Starts this program again where there is no network but loopback."""
    if os.environ.get("GATEWAYS_ALONE") != "1":
        env = {**os.environ, "GATEWAYS_ALONE": "1"}
        os.execvpe("unshare", ["unshare", "-n", sys.executable, *sys.argv], env)
    loopback_up()


def micros(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * UNITS[unit]


def load(gateway, connections, stream, seconds):
    """One round: latencies at 50 and 99 % in microseconds, requests a second, CPU in microseconds a request.

    None where any answer was an error: such a round says nothing about speed."""
    headers = "\n".join(f"{name}: {value}" for name, value in gateway.headers.items())
    env = {**os.environ, "BODY": gateway.request(PROMPT, stream), "HEADERS": headers}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(HERE / "post.lua")]
    before = gateway.cpu_s()
    text = subprocess.run(
        [*command, gateway.url + "/chat/completions"], env=env, capture_output=True, text=True, check=True
    ).stdout
    cpu = gateway.cpu_s() - before
    if "Non-2xx" in text or "Socket errors" in text:
        return None
    at = {percent: micros(value) for percent, value in re.findall(r"(?m)^\s+(50|99)%\s+([\d.]+(?:us|ms|s))$", text)}
    count = int(re.search(r"(\d+) requests in", text).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    return {"p50_us": at["50"], "p99_us": at["99"], "rate": rate, "cpu_us": cpu * 1e6 / max(count, 1)}


def interval(samples, draws=2000):
    """The median's bootstrap interval, 95 %."""
    source = random.Random(1)
    medians = sorted(statistics.median(source.choices(samples, k=len(samples))) for _ in range(draws))
    return medians[int(draws * 0.025)], medians[int(draws * 0.975)]


def measure(running, rounds, seconds):
    """Samples by case and gateway. The order turns each round."""
    samples = {case[0]: {gateway.name: [] for gateway in running} for case in CASES}
    for number in range(rounds):
        turn = number % len(running)
        for gateway in running[turn:] + running[:turn]:
            for name, connections, stream in CASES:
                samples[name][gateway.name].append(load(gateway, connections, stream, seconds))
                print(f"round {number + 1}: {gateway.name}, {name}: {samples[name][gateway.name][-1]}", file=sys.stderr)
    return samples


def table(running, samples):
    lines = ["| case | gateway | p50 added (us) | p99 added (us) | requests/s | CPU (us a request) |", "|---|---|--:|--:|--:|--:|"]
    for case, by_gateway in samples.items():
        direct = by_gateway["direct"]
        for gateway in running:
            rounds = by_gateway[gateway.name]
            if None in rounds:
                failed = sum(one is None for one in rounds)
                lines.append(f"| {case} | {gateway.name} | errors in {failed} of {len(rounds)} rounds | | | |")
                continue
            cells = []
            for key in ("p50_us", "p99_us"):
                added = [own[key] - base[key] for own, base in zip(rounds, direct)]
                low, high = interval(added)
                median = statistics.median(added)
                cells.append("" if gateway.name == "direct" else f"{median:.0f} [{low:.0f}, {high:.0f}]")
            rate = statistics.median(one["rate"] for one in rounds)
            cpu = statistics.median(one["cpu_us"] for one in rounds)
            lines.append(f"| {case} | {gateway.name} | {' | '.join(cells)} | {rate:.0f} | {cpu:.0f} |")
    return lines


def lock_line(lock):
    otherwise = ", ".join(lock["otherwise"]) or "nothing"
    return f"{lock['lock']}, SHA-256 {lock['sha256'][:12]}; installed otherwise: {otherwise}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tieline", required=True, help="the release build of tieline")
    parser.add_argument("--upstream", required=True, help="the release build of the example `instant`")
    parser.add_argument("--gateways", default=os.path.expanduser("~/.cache/tieline/gateways"))
    parser.add_argument("--only", nargs="*", help="these gateways alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--out", help="a file for all samples, as JSON")
    args = parser.parse_args()
    alone()
    load_before = os.getloadavg()[0]
    upstream = subprocess.Popen([args.upstream], stdout=subprocess.PIPE, text=True)
    url = upstream.stdout.readline().strip() + "/v1"
    running = []
    try:
        with open("/tmp/gateways.log", "w") as log:
            running, missing = gateways.start_all(
                pathlib.Path(args.gateways), os.path.abspath(args.tieline), url, log, args.only
            )
            idle = {gateway.name: gateway.memory_kb() for gateway in running}
            samples = measure(running, args.rounds, args.seconds)
            after = {gateway.name: gateway.memory_kb() for gateway in running}
    finally:
        for gateway in running:
            gateway.end()
        upstream.terminate()
    lines = [f"Rounds: {args.rounds} of {args.seconds} s, in turns. Load average before {load_before:.2f}.", ""]
    lines += table(running, samples)
    lines += ["", "| gateway | version | first answer after start (s) | memory idle (MB) | after (MB) |", "|---|---|--:|--:|--:|"]
    for gateway in running[1:]:
        memory = f"{idle[gateway.name] / 1e3:.0f} | {after[gateway.name] / 1e3:.0f}"
        lines.append(f"| {gateway.name} | {gateway.version} | {gateway.cold_start_s:.2f} | {memory} |")
    lines += [f"- {name} is missing: {why}" for name, why in missing.items()]
    locks = gateways.locked(pathlib.Path(args.gateways))
    lines += [f"- {name}: {lock_line(lock)}" for name, lock in locks.items() if lock["otherwise"] is not None]
    print("\n".join(lines))
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps({"samples": samples, "missing": missing, "locks": locks}, indent=1))


if __name__ == "__main__":
    main()
