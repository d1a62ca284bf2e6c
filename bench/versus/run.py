#!/usr/bin/env python3
"""Measures Tieline against bare llama.cpp on this machine, in turns, and keeps every sample.

Standard library only. Writes results/<date>-<host>.json and .svg and the table in bench/RESULTS.md.
"""

import argparse
import datetime
import json
import os
import platform
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import peer  # noqa: E402
import report  # noqa: E402
import stats  # noqa: E402

DEADLINE_S = 600
MAX_LOAD = 0.5
CONTEXT = "2048"
QUESTION = "What is the capital of France?"
# About 400 tokens, so that its prefill can be timed.
LONG_PROMPT = "Continue this list of small facts, one per line, as long as you can.\n" + "\n".join(
    f"{number}. The number {number} comes after {number - 1} and before {number + 1}."
    for number in range(1, 17))
FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")

NOTES = [
    "One run that does not count comes before each measurement by `bench` and by llama-bench.",
    "Prefill and decode by `bench`: random tokens as many as named, no sampler, on both sides.",
    "Decode speed of an answer is (tokens − 1) / time from the first token to the last, on both sides.",
    "The server stays loaded, is warmed up and reuses no prompt; `tieline run` starts anew for each answer.",
    "First token: from the start of the process to the first byte of the answer on stdout. "
    "llama-completion runs without its warm-up run (`--no-warmup`), which would only cost it time here. "
    "Model files are in the page cache on both sides after one unmeasured run.",
    "Memory: the highest resident size of each process (VmHWM), added over the process and its children; "
    "taken in runs of their own, which are not timed. `wait4` gives the largest single process beside it, in the raw file.",
]


class Failed(Exception):
    """A command failed; its last words are in the message."""


def main():
    options = arguments()
    # The build that came before may be what keeps the machine busy.
    wait_until_idle(options)
    load_before = os.getloadavg()[0]
    if load_before > MAX_LOAD and not options.force:
        sys.exit(f"versus: the load average is {load_before:.2f}: wait until it is under {MAX_LOAD}\n"
                 "hint: --force measures all the same and says so in the result")
    with tempfile.TemporaryDirectory(prefix="tieline-versus-") as scratch:
        folder = options.peer_dir or scratch
        if not options.peer_dir:
            say(f"building {peer.PACKAGE} in {folder}: minutes")
            peer.install(folder)
            wait_until_idle(options)
        result = measure(options, peer.programs(folder), load_before)
    rows = report.summarise(result)
    write(result, rows, options)
    for row in rows:
        print(f"{row['name']}: {row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {row['verdict']}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tieline", default="target/release/tieline", help="the program to measure")
    parser.add_argument("--model", default="smollm2", help="a model that Tieline has, or a GGUF file")
    parser.add_argument("--peer-dir", help="an environment that already holds llama.cpp")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--run-args", default="", help="more arguments for `tieline run`")
    parser.add_argument("--bench-args", default="", help="more arguments for `tieline bench`")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine; recorded")
    options = parser.parse_args()
    if options.rounds < stats.ENOUGH_ROUNDS and not options.force:
        sys.exit("versus: fewer than 5 rounds carry no interval\nhint: --force measures all the same")
    return options


def say(text):
    print(f"versus: {text}", file=sys.stderr, flush=True)


def wait_until_idle(options):
    """A build raised the load: let it fall before the first sample."""
    deadline = time.monotonic() + DEADLINE_S
    if os.getloadavg()[0] > MAX_LOAD and not options.force:
        say(f"waiting for the load average to fall under {MAX_LOAD}")
    while os.getloadavg()[0] > MAX_LOAD and not options.force and time.monotonic() < deadline:
        time.sleep(5)


# --- the two sides ---------------------------------------------------------------------------

def commands(options, ours, path, programs):
    """Every command line, by name. The result quotes them as they are."""
    threads = str(options.threads)
    run = [options.tieline, "run", ours, "--greedy", "--no-cache", "--threads", threads, "--ctx", CONTEXT,
           *shlex.split(options.run_args)]
    completion = [programs["llama-completion"], "-m", path, "-t", threads, "--temp", "0", "-c", CONTEXT,
                  "-st", "--jinja", "--no-display-prompt", "--simple-io", "--no-warmup"]
    return {
        "our bench": [options.tieline, "bench", ours, "--prefill", str(options.prefill),
                      "--decode", str(options.decode), "--threads", threads, "--repeat", "1", "--json",
                      *shlex.split(options.bench_args)],
        "their bench": [programs["llama-bench"], "-m", path, "-p", str(options.prefill),
                        "-n", str(options.decode), "-t", threads, "-r", "1", "-o", "json"],
        "our answer": [*run, "--json", "--ignore-end", "--max-tokens", str(options.decode), LONG_PROMPT],
        "their server": [programs["llama-server"], "-m", path, "-t", threads, "-c", CONTEXT, "-np", "1",
                         "--host", "127.0.0.1", "--no-webui"],
        "our start": [*run, "--max-tokens", "16", QUESTION],
        "their start": [*completion, "-n", "16", "-p", QUESTION],
    }


def measure(options, programs, load_before):
    ours, path = model_names(options)
    lines = commands(options, ours, path, programs)
    samples = {}
    say("one unmeasured run of each, so that files are in the page cache")
    first_byte(lines["our start"])
    first_byte(lines["their start"])
    say(f"bench, {options.rounds} rounds")
    in_turns(options.rounds, samples, {
        "our bench": lambda: our_bench(lines["our bench"]),
        "their bench": lambda: their_bench(lines["their bench"])})
    say("answers")
    with Server(lines["their server"]) as server:
        server.answer(LONG_PROMPT, 8)
        in_turns(options.rounds, samples, {
            "our answer": lambda: our_answer(lines["our answer"]),
            "their answer": lambda: server.answer(LONG_PROMPT, options.decode)})
    say("start to first token")
    in_turns(options.rounds, samples, {
        "our start": lambda: {"first_ms": first_byte(lines["our start"])},
        "their start": lambda: {"first_ms": first_byte(lines["their start"])}})
    say("memory")
    in_turns(options.rounds, samples, {
        "our memory": lambda: peak_memory(lines["our start"]),
        "their memory": lambda: peak_memory(lines["their start"])})
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "forced": options.force,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "model": {"name": os.path.basename(ours), "bytes": os.path.getsize(path)},
        "threads": options.threads,
        "rounds": options.rounds,
        "versions": {"tieline": our_version(options.tieline),
                     "llama.cpp": peer.version(programs),
                     "llama.cpp kernels": peer.kernels(programs, path),
                     "tieline kernels": samples["our bench"][0].get("kernels", "unknown")},
        "commands": commands_to_show(lines),
        "notes": NOTES + prompt_notes(samples),
        "measures": measures(options, samples),
        "samples": samples,
    }


def in_turns(rounds, samples, sides):
    """A B, B A, A B, …: neither side always runs on a machine that the other has warmed."""
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            samples.setdefault(name, []).append(sides[name]())


def measures(options, samples):
    def one(name, unit, higher, pair, field, against):
        ours, theirs = ([sample[field] for sample in samples[f"{who} {pair}"]] for who in ("our", "their"))
        return {"name": name, "unit": unit, "higher_is_better": higher, "peer": against,
                "ours": ours, "theirs": theirs}

    return [
        one(f"prefill {options.prefill}", "tok/s", True, "bench", "prefill_tps", "llama-bench"),
        one(f"decode {options.decode}", "tok/s", True, "bench", "decode_tps", "llama-bench"),
        one("prefill of an answer", "tok/s", True, "answer", "prefill_tps", "llama-server"),
        one("decode of an answer", "tok/s", True, "answer", "decode_tps", "llama-server"),
        one("start to first token", "ms", False, "start", "first_ms", "llama-completion"),
        one("peak memory", "MiB", False, "memory", "sum_mib", "llama-completion"),
    ]


def prompt_notes(samples):
    """Names what differed between the two answers: a rate over other tokens is another rate."""
    notes = []
    for field in ("prompt_tokens", "answer_tokens"):
        ours, theirs = ({s[field] for s in samples[f"{who} answer"]} for who in ("our", "their"))
        if ours != theirs:
            notes.append(f"**{field} differ**: ours {sorted(ours)}, theirs {sorted(theirs)}.")
    return notes


# --- samples ---------------------------------------------------------------------------------

def output(command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=DEADLINE_S)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:3])} … exited {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def model_names(options):
    """The model as Tieline names it, and where its file lies for the other side."""
    if os.path.isfile(options.model):
        path = os.path.abspath(options.model)
        return f"file:{path}", path
    return options.model, json.loads(output([options.tieline, "show", options.model, "--json"]))["path"]


def our_version(tieline):
    return output([tieline, "--version"]).strip()


def our_bench(command):
    said = json.loads(output(command))
    rates = said["samples"]
    return {"prefill_tps": rates["prefill_tps"][0], "decode_tps": rates["decode_tps"][0],
            "kernels": " ".join(said.get("kernels", []))}


def their_bench(command):
    said = json.loads(output(command))
    prefill = next(test for test in said if test["n_prompt"] and not test["n_gen"])
    decode = next(test for test in said if test["n_gen"] and not test["n_prompt"])
    return {"prefill_tps": prefill["samples_ts"][0], "decode_tps": decode["samples_ts"][0]}


def our_answer(command):
    said = json.loads(output(command))
    usage, timing = said["usage"], said["timing"]
    computed = usage["prompt_tokens"] - usage.get("cached_tokens", 0)
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "answer_tokens": usage["completion_tokens"],
        "prefill_tps": computed / seconds(timing, "prefill"),
        "decode_tps": (usage["completion_tokens"] - 1) / seconds(timing, "decode"),
    }


def seconds(timing, name):
    """A duration of the JSON: `prefill_ms`, or the pair that serde makes of a Duration."""
    if f"{name}_ms" in timing:
        return timing[f"{name}_ms"] / 1e3
    if f"{name}_us" in timing:
        return timing[f"{name}_us"] / 1e6
    return timing[name]["secs"] + timing[name]["nanos"] / 1e9


class Server:
    """A bare llama-server on a free port of this machine, ended on the way out."""

    def __init__(self, command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [*command, "--port", str(self.port)]

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2).close()
                return self
            except OSError:
                time.sleep(0.1)
        self.log.seek(0)
        words = self.log.read()[-2000:].decode(errors="replace")
        self.__exit__()
        raise Failed(f"llama-server did not come up: {words}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def answer(self, prompt, tokens):
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens,
                "temperature": 0, "cache_prompt": False, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
            timings = json.load(reply)["timings"]
        if timings.get("cache_n"):
            raise Failed(f"llama-server reused {timings['cache_n']} tokens of the prompt")
        return {
            "prompt_tokens": timings["prompt_n"],
            "answer_tokens": timings["predicted_n"],
            "prefill_tps": timings["prompt_n"] / timings["prompt_ms"] * 1e3,
            "decode_tps": (timings["predicted_n"] - 1) / timings["predicted_ms"] * 1e3,
        }


def first_byte(command):
    """Milliseconds from the start of the process to its first byte on stdout."""
    with tempfile.TemporaryFile() as talk:
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=talk)
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
        byte = os.read(process.stdout.fileno(), 1) if ready else b""
        took = (time.monotonic() - start) * 1e3
        if not byte:
            process.kill()
        while os.read(process.stdout.fileno(), 65536):
            pass
        code = process.wait()
        process.stdout.close()
        if not byte or code != 0:
            talk.seek(0)
            words = talk.read()[-2000:].decode(errors="replace")
            raise Failed(f"{' '.join(command[:3])} … gave no answer, exit {code}: {words}")
        return took


def peak_memory(command):
    """Highest resident size, added over the process and its children, and wait4's largest single one."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks, ended = {}, threading.Event()

    def watch():
        while not ended.wait(0.002):
            for pid in tree(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), resident_peak_kib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(command[:3])} … exited {process.returncode}")
    largest = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
    return {"sum_mib": max(sum(peaks.values()) / 1024, largest), "wait4_mib": largest}


def tree(pid):
    """The process and all its descendants, as /proc knows them now."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += [int(word) for word in children.read_text().split()]
            except OSError:
                pass
    return pids


def resident_peak_kib(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


# --- the result ------------------------------------------------------------------------------

def machine():
    cpu, features = platform.processor() or "unknown", []
    try:
        fields = dict(
            (key.strip(), value.strip()) for key, _, value in
            (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()))
        cpu = fields.get("model name", cpu)
        flags = (fields.get("flags") or fields.get("Features") or "").split()
        features = [name for name in FEATURES if name in flags]
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "features": features,
            "memory_gib": round(memory / 2**30, 1), "system": f"{platform.system()} {platform.release()}"}


def commands_to_show(lines):
    """Without the folders of this machine, and with the long prompt cut."""
    def word(text):
        if text == LONG_PROMPT:
            return f"'{text[:40]}…'"
        return shlex.quote(os.path.basename(text) if os.sep in text else text)
    return {name: [word(text) for text in command] for name, command in lines.items()}


def write(result, rows, options):
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{result['date']}-{platform.node() or 'host'}"
    result["summary"] = rows
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{name}.svg").write_text(report.svg(rows))
    page = options.page.read_text() if options.page.exists() else "# Results\n"
    options.page.write_text(report.splice(page, report.markdown(result, rows, name)))
    say(f"wrote {options.out / name}.json, .svg and {options.page}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"versus: {failed}")
