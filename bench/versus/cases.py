"""What is measured: each case asks both sides the same and returns every sample with the measures made of them."""

import contextlib
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib

import prompts
import run
from backends import Failed, Ours, Server, buffers, resident_peak_bytes

# What `--quick` shrinks: enough to see that each case works, too little to mean anything.
FULL = {"one": (512, 128), "eight": (8, 256, 128), "gap": (3000, 16, 2500), "prefix": ((1500, 6000), 10, 600),
        "restart": ((1500, 3000, 6000), 1500), "agent": (10, 4000, 200, (16, 64)), "rewrite": 400, "free": 256, "schema": 256,
        "load": (64, 128), "memory": (512, 32), "context": 8192, "best_context": 16384}
QUICK = {"one": (48, 12), "eight": (8, 24, 8), "gap": (200, 8, 120), "prefix": ((96, 192), 2, 40),
         "restart": ((128,), 1000), "agent": (2, 400, 40, (4, 8)), "rewrite": 24, "free": 16, "schema": 24,
         "load": (16, 8), "memory": (48, 4), "context": 1024, "best_context": 2048}

# Cases of minutes a sample: one measurement of each of llama-server's candidate settings must do.
SLOW = ("prefix", "agent")


class Bench:
    """What every case needs: how to start each side, prompts, sizes, rounds."""

    def __init__(self, options, programs, corpus, digest):
        self.options, self.corpus, self.digest = options, corpus, digest
        self.program = programs["llama-server"]
        self.rounds, self.sizes = options.rounds, QUICK if options.quick else FULL
        self.calibrate, self.calibrated, self.commands = options.calibrate, {}, {}

    def ours(self, *flags, threads=None):
        options = self.options
        return self._named("ours", Ours(
            options.tieline_driver, options.runner, options.model,
            ["--ctx", str(self.sizes["context"]), "--threads", str(threads or options.threads), *flags], self.digest))

    def server(self, flags=(), name="default"):
        return self._named(name, Server(self.program, self.options.model, self.options.threads, flags, name))

    def _named(self, name, backend):
        self.commands[" ".join([name, *map(str, backend.command[-4:])])] = backend.command
        return backend

    def candidates(self, case):
        """Settings that an operator who knows llama-server would try."""
        shared = ["-c", str(self.sizes["best_context"]), "-np", "8", "-kvu", "-fa", "on"]
        if case == "agent":
            # Batches change how fast it reads, not how much of it: one candidate saves an hour.
            return {"8 slots, reuse": [*shared, "--cache-reuse", "256"]}
        found = {
            "8 slots": shared,
            "8 slots, batches of 256": [*shared, "-b", "256", "-ub", "256"],
            "8 slots, ubatch 1024, reuse": [*shared, "-b", "2048", "-ub", "1024", "--cache-reuse", "256"],
        }
        if case == "gap":
            found["8 slots, batches of 64"] = [*shared, "-b", "64", "-ub", "64"]
        if case in ("one", "prefix"):
            found["1 slot"] = ["-np", "1", "-fa", "on"]
        return found

    def best(self, case, sample, score, candidates=None):
        """The candidate that scores highest; llama-server's defaults are among them. Its name and flags."""
        scores = {}
        candidates = candidates or {"default": [], **self.candidates(case)}
        if self.options.quick:
            candidates = dict(list(candidates.items())[-1:])
        if name := self.options.settings:
            if name not in candidates:
                raise Failed(f"no settings {name!r}: there are {', '.join(candidates)}")
            self.calibrated[case] = {"chosen": name, "flags": candidates[name], "scores": None}
            return name, candidates[name]
        for name, flags in candidates.items():
            with self.server(flags, name) as server:
                warm(self, server)
                tries = [score(sample(server, f"{case} calibration {turn}")) for turn in range(1 if case in SLOW else self.calibrate)]
            scores[name] = statistics.median(tries)
            run.say(f"{case}: llama-server, {name}: {scores[name]:.4g}")
        chosen = max(scores, key=scores.get)
        self.calibrated[case] = {"chosen": chosen, "flags": candidates[chosen], "scores": scores}
        return chosen, candidates[chosen]

    def in_rounds(self, sides, sample):
        """One sample of each side a round, the order turned; the same round has the same seed on every side."""
        samples = {}

        def one(name, side):
            return lambda: sample(side, f"round {len(samples.get(name, []))}")

        run.in_turns(self.rounds, samples, {name: one(name, side) for name, side in sides.items()})
        return samples

    def three_sides(self, case, sample, score, ours=()):
        """Ours with these flags, llama-server as it comes and at its best, all started before the first round."""
        chosen, flags = self.best(case, sample, score)
        with contextlib.ExitStack() as stack:
            sides = {"ours": self.ours(*ours), "default": self.server(), "best": self.server(flags, chosen)}
            for side in sides.values():
                warm(self, stack.enter_context(side))
            return self.in_rounds(sides, sample)


def warm(bench, side):
    side.ask(tokens=bench.corpus.prompt(32, "warm"), max_tokens=4, ignore_end=True).wait()


def measure(name, unit, samples, sides, field, **more):
    """Pairs `field` of two sides; `sides` is (ours, theirs). `target` is ("at least"|"at most", ratio)."""
    ours, theirs = ([pick(sample, field) for sample in samples[side]] for side in sides)
    return {"name": name, "unit": unit, "higher_is_better": True, "against": AGAINST.get(sides[1], sides[1]),
            "target": None, "ours": ours, "theirs": theirs, **more}


AGAINST = {"default": "llama-server, defaults", "best": "llama-server, best settings"}


def pick(sample, field):
    return field(sample) if callable(field) else sample[field]


def both(name, unit, samples, field, best=None, default=None, higher=True):
    """A measure against each of the peer's two settings, with the target for each."""
    return [measure(name, unit, samples, ("ours", side), field, target=target, higher_is_better=higher)
            for side, target in (("best", best), ("default", default))]


# --- 1, 2, 3: streams ------------------------------------------------------------------------

def one(bench):
    prompt, answer = bench.sizes["one"]

    def sample(side, seed):
        # Past its end a small model repeats itself: guesses would be measured, and not decoding.
        done = side.ask(tokens=bench.corpus.prompt(prompt, f"one {seed}"), max_tokens=answer, ignore_end=True,
                        speculation="off").wait()
        return {"prefill_tps": done.prefill_tps, "decode_tps": done.decode_tps, "usage": done.usage, "timing": done.timing}

    samples = bench.three_sides("one", sample, lambda found: 1 / (prompt / found["prefill_tps"] + answer / found["decode_tps"]))
    return samples, [
        *both(f"one stream, prefill of {prompt}", "tok/s", samples, "prefill_tps", ("at least", 0.98), ("at least", 0.98)),
        *both(f"one stream, decode of {answer}", "tok/s", samples, "decode_tps", ("at least", 0.98), ("at least", 0.98))]


def eight(bench):
    streams, prompt, answer = bench.sizes["eight"]

    def sample(side, seed):
        asked = [side.ask(tokens=bench.corpus.prompt(prompt, f"eight {stream} {seed}"), max_tokens=answer, ignore_end=True)
                 for stream in range(streams)]
        done = [pending.wait() for pending in asked]
        took = max(pending.ended for pending in done) - min(pending.sent for pending in done)
        return {"tps": sum(p.usage["prompt"] + p.usage["completion"] for p in done) / took, "seconds": took,
                "first_token_s": [p.first_token_s for p in done], "usage": [p.usage for p in done]}

    samples = bench.three_sides("eight", sample, lambda found: found["tps"])
    return samples, both(f"{streams} streams of {prompt} + {answer}", "tok/s read and written", samples, "tps",
                         ("at least", 1.10), ("at least", 1.5))


def worst_gap(times, start, end):
    """The longest pause between two tokens that lies at least partly between `start` and `end`."""
    pairs = [(a, b) for a, b in zip(times, times[1:]) if b > start and a < end]
    return max((b - a for a, b in pairs), default=0.0)


def gap(bench):
    long, lead, limit = bench.sizes["gap"]

    def first_token(side, seed):
        return side.ask(tokens=bench.corpus.prompt(long, f"gap {seed}"), max_tokens=4, ignore_end=True)

    def sample(side, seed):
        alone = first_token(side, f"alone {seed}").wait().first_token_s
        stream = side.ask(tokens=bench.corpus.prompt(64, f"gap stream {seed}"), max_tokens=limit, ignore_end=True)
        stream.until_pieces(lead)
        other = first_token(side, f"beside {seed}").wait()
        seen = len(stream.times)
        # The pause may last until the first token after the prompt.
        stream.until(lambda: len(stream.times) > seen, "token after the gap")
        times, ended_early = list(stream.times), stream.ended is not None and stream.ended < other.times[0]
        stream.cancel()
        return {"gap_ms": worst_gap(times, other.sent, other.times[0]) * 1e3, "alone_s": alone,
                "beside_s": other.first_token_s, "stream_ended_early": ended_early, "pieces": len(times)}

    samples = bench.three_sides("gap", sample, lambda found: -found["gap_ms"])
    for name in samples:
        if any(found["stream_ended_early"] for found in samples[name]):
            run.say(f"gap: {name}: the stream ended before the long prompt's first token")
    ratios = {f"{side} {what}": [{"s": found[f"{what}_s"]} for found in samples[side]]
              for side in samples for what in ("alone", "beside")}
    words = f"first token of a {long}-token prompt beside a stream"
    return samples, [
        *both(f"worst gap of a stream while a {long}-token prompt is read", "ms", samples, "gap_ms",
              None, ("at most", 1 / 20), higher=False),
        *[measure(f"{words}{note}", "s", ratios, (f"{side} beside", f"{side} alone"), "s", higher_is_better=False,
                  against=f"{who} alone", target=target)
          for side, who, note, target in (
              ("ours", "our own", "", ("at most", 1.25)), ("default", "its own", ", llama-server, defaults", None),
              ("best", "its own", ", llama-server, best settings", None))],
        *both(words, "s", samples, "beside_s", higher=False)]


# --- 4, 5: what was read before --------------------------------------------------------------

def asked(bench, side, shared, seed, **more):
    """The time to the first token of a shared beginning and 16 tokens of its own."""
    own = bench.corpus.prompt(16, f"own {seed}")
    done = side.ask(tokens=shared + own, max_tokens=4, ignore_end=True, **more).wait()
    return {"first_token_s": done.first_token_s, "cached": done.usage["cached"], "prompt": done.usage["prompt"]}


def traffic(bench, side, requests, length, seed):
    for number in range(requests):
        side.ask(tokens=bench.corpus.prompt(length, f"traffic {number} {seed}"), max_tokens=4, ignore_end=True).wait()


def prefix(bench):
    lengths, requests, other = bench.sizes["prefix"]

    def sample(side, seed):
        found = {}
        for length in lengths:
            shared, here = bench.corpus.prompt(length, f"prefix {length} {seed}"), f"{length} {seed}"
            found[f"cold {length}"] = asked(bench, side, shared, f"cold {here}")
            found[f"seen {length}"] = asked(bench, side, shared, f"seen {here}")
            traffic(bench, side, requests, other, here)
            found[f"later {length}"] = asked(bench, side, shared, f"later {here}")
        return found

    # As users have both: what leaves the KV cache, ours keeps on disk and llama-server in memory (--cache-ram).
    with tempfile.TemporaryDirectory(prefix="tieline-versus-cache-") as folder:
        samples = bench.three_sides("prefix", sample, lambda found: -sum(part["first_token_s"] for part in found.values()),
                                    ("--cache-dir", folder))
    words = {"cold": "cold", "seen": "seen before", "later": f"seen before {requests} other requests"}
    return samples, [
        row for length in lengths for key, word in words.items()
        for row in both(f"first token, {length}-token prefix, {word}", "ms", samples,
                        lambda found, key=f"{key} {length}": found[key]["first_token_s"] * 1e3,
                        ("at most", 1.0), ("at most", 1.0), higher=False)]


def restart(bench):
    lengths, other = bench.sizes["restart"]

    def life(start, length, seed, after_cold=None, after_start=None):
        """Cold; after a restart of everything; after more traffic than the KV cache holds."""
        seed = f"{length} {seed}"
        shared = bench.corpus.prompt(length, f"restart {seed}")
        with start() as side:
            warm(bench, side)
            cold = asked(bench, side, shared, f"cold {seed}", **(SLOT if after_cold else {}))
            if after_cold:
                after_cold(side)
        with start() as side:
            warm(bench, side)
            begin = time.monotonic()
            if after_start:
                after_start(side)
            by_hand = time.monotonic() - begin
            again = asked(bench, side, shared, f"again {seed}", **(SLOT if after_start else {}))
            again["first_token_s"] += by_hand
            traffic(bench, side, math.ceil(1.3 * side.kv_tokens / other), other, seed)
            late = asked(bench, side, shared, f"late {seed}")
        return {"cold": cold, "restart": again, "eviction": late}

    def ours(length, seed):
        with tempfile.TemporaryDirectory(prefix="tieline-versus-cache-") as folder:
            return life(lambda: bench.ours("--cache-dir", folder), length, seed)

    def default(length, seed):
        return life(bench.server, length, seed)

    def saved(length, seed):
        """What an operator can do by hand: save the slot before the end, restore it after the start."""
        with tempfile.TemporaryDirectory(prefix="tieline-versus-slots-") as folder:
            flags = ["-c", str(bench.sizes["best_context"]), "-np", "8", "-kvu", "-fa", "on", "--slot-save-path", folder]
            return life(lambda: bench.server(flags, "slots saved by hand"), length, seed,
                        lambda side: side.post("/slots/0?action=save", {"filename": "slot.bin"}),
                        lambda side: side.post("/slots/0?action=restore", {"filename": "slot.bin"}))

    sides = {"ours": ours, "default": default, "best": saved}
    samples = bench.in_rounds(sides, lambda side, seed: {length: side(length, seed) for length in lengths})
    flat = {f"{side} {length} {when}": [{"ms": found[length][when]["first_token_s"] * 1e3} for found in samples[side]]
            for side in samples for length in lengths for when in ("cold", "restart", "eviction")}
    words = {"restart": "after a restart of everything", "eviction": "after more traffic than the KV cache holds"}
    who = {"ours": "", "default": ", llama-server, defaults", "best": ", llama-server, slot saved and restored by hand"}
    own = [
        measure(f"first token, {length}-token prefix, {words[when]}{who[side]}", "ms", flat,
                (f"{side} {length} {when}", f"{side} {length} cold"), "ms", higher_is_better=False,
                against="our own cold" if side == "ours" else "its own cold",
                target=("at most", 1 / 30) if side == "ours" else None)
        for length in lengths for when in words for side in who]
    beside = [
        measure(f"first token, {length}-token prefix, {words[when]}", "ms", flat,
                (f"ours {length} {when}", f"{side} {length} {when}"), "ms", higher_is_better=False,
                against=f"llama-server{who[side].removeprefix(', llama-server')}")
        for length in lengths for when in words for side in ("default", "best")]
    return samples, own + beside


SLOT = {"id_slot": 0}


# --- 6: an agent -----------------------------------------------------------------------------

def agent(bench):
    turns, system, result, (shortest, longest) = bench.sizes["agent"]
    tokenize, texts = bench.corpus.tokenize, prompts.sentences()

    def sample(side, seed):
        talk, usages, firsts = [{"role": "user", "content": prompts.question(seed)}], [], []
        for turn in range(turns):
            head = {"role": "system", "content": prompts.system_prompt(tokenize, system, seed, turn, texts)}
            length = random.Random(f"answer {turn} {seed}").randint(shortest, longest)
            done = side.ask(messages=[head, *talk], max_tokens=length, ignore_end=True).wait()
            usages.append(done.usage)
            firsts.append(done.first_token_s)
            talk += [{"role": "assistant", "content": done.answer},
                     {"role": "user", "content": prompts.tool_result(tokenize, result, seed, turn, texts)}]
        return {"share": recomputed(usages), "first_token_s": sum(firsts), "usage": usages, "first_tokens_s": firsts}

    samples = bench.three_sides("agent", sample, lambda found: -found["first_token_s"])
    needed = {f"{side} needed": [{"share": 1.0} for _ in samples[side]] for side in samples}
    words = f"agent, {turns} turns: tokens computed of prompts over tokens new in them"
    return samples, [
        *[measure(words + note, "times", samples | needed, (side, f"{side} needed"), "share", higher_is_better=False,
                  against="each new token once", target=target)
          for side, note, target in (("ours", "", ("at most", 1.05)), ("default", ", llama-server, defaults", None),
                                     ("best", ", llama-server, best settings", None))],
        *both(f"agent, {turns} turns: sum of times to the first token", "s", samples, "first_token_s", higher=False)]


def recomputed(usages):
    """Tokens of prompts that were computed, over the first prompt and what each later one adds."""
    computed = sum(usage["prompt"] - usage["cached"] for usage in usages)
    lengths = [usage["prompt"] for usage in usages]
    new = lengths[0] + sum(max(0, after - before) for before, after in zip(lengths, lengths[1:]))
    return computed / new


# --- 7, 8: guessing ahead --------------------------------------------------------------------

def speculative(bench, text_of, length, temperature=0):
    """Decode speed with and without guessing ahead, ours and theirs."""

    def sample(side, seed, **more):
        tokens = bench.corpus.tokenize(text_of(seed))
        drawn = {"temperature": temperature, "seed": zlib.crc32(str(seed).encode())}
        done = side.ask(tokens=tokens, max_tokens=length, ignore_end=True, **drawn, **more).wait()
        drafted, accepted = done.usage.get("drafted", 0), done.usage.get("accepted", 0)
        return {"decode_tps": done.decode_tps, "drafted": drafted, "accepted": accepted,
                "acceptance": accepted / drafted if drafted else None, "pieces": len(done.times)}

    kinds = {"ngram-simple": ["--spec-type", "ngram-simple"],
             "ngram-simple, pairs of 4 and 16": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4",
                                                 "--spec-ngram-simple-size-m", "16"],
             "ngram-mod": ["--spec-type", "ngram-mod"]}
    chosen, flags = bench.best(f"speculation of {text_of.__name__}", sample, lambda found: found["decode_tps"], kinds)
    with contextlib.ExitStack() as stack:
        ours, plain, guessing = bench.ours(), bench.server(), bench.server(flags, chosen)
        for side in (ours, plain, guessing):
            warm(bench, stack.enter_context(side))
        sides = {"ours": (ours, "auto"), "ours, off": (ours, "off"), "default": (plain, "off"), "guessing": (guessing, "auto")}
        # The cache is off: what is measured is guessing from the prompt, not from an earlier answer's text.
        return bench.in_rounds(sides, lambda side, seed: sample(side[0], seed, speculation=side[1], cache=False))


def speculation_rows(what, samples, target):
    def share(side):
        drafted = sum(found["drafted"] for found in samples[side])
        return f"{sum(found['accepted'] for found in samples[side]) / drafted:.0%} of {drafted} accepted" if drafted else "nothing guessed"

    return [
        measure(f"{what}, guessing ahead ({share('ours')})", "tok/s", samples, ("ours", "ours, off"), "decode_tps",
                against="our own without", target=target),
        measure(f"{what}, llama-server guessing ahead ({share('guessing')})", "tok/s", samples, ("guessing", "default"),
                "decode_tps", against="llama-server without"),
        measure(f"{what}, guessing ahead", "tok/s", samples, ("ours", "guessing"), "decode_tps",
                against="llama-server guessing ahead"),
        measure(f"{what}, guessing ahead", "tok/s", samples, ("ours", "default"), "decode_tps")]


def rewrite(bench):
    samples = speculative(bench, prompts.rewrite, bench.sizes["rewrite"])
    return samples, speculation_rows("decode, a file rewritten with one change", samples, ("at least", 1.8))


def free(bench):
    # The likeliest text of a small model soon repeats itself, and is guessed as what was said before.
    samples = speculative(bench, prompts.story, bench.sizes["free"], temperature=0.8)
    return samples, speculation_rows("decode, free text", samples, ("at least", 0.98))


# --- 9: a schema -----------------------------------------------------------------------------

def schema(bench):
    length = bench.sizes["schema"]

    def sample(side, seed):
        side, rule = side
        done = side.ask(tokens=bench.corpus.tokenize(prompts.people(seed)), max_tokens=length, ignore_end=True,
                        speculation="off", **({"schema": prompts.SCHEMA} if rule else {})).wait()
        if rule and not done.answer.lstrip().startswith("["):
            raise Failed("the answer does not keep to the schema, so its speed means nothing")
        return {"decode_tps": done.decode_tps, "first_token_s": done.first_token_s, "usage": done.usage,
                "answer": done.answer[:200]}

    with bench.ours() as ours, bench.server() as server:
        warm(bench, ours)
        warm(bench, server)
        sides = {"ours": (ours, True), "ours, free": (ours, False), "default": (server, True), "default, free": (server, False)}
        samples = bench.in_rounds(sides, sample)
    return samples, [
        measure("decode under a JSON schema", "tok/s", samples, ("ours", "ours, free"), "decode_tps",
                against="our own without", target=("at least", 0.95)),
        measure("decode under a JSON schema, llama-server", "tok/s", samples, ("default", "default, free"), "decode_tps",
                against="llama-server without"),
        measure("decode under a JSON schema", "tok/s", samples, ("ours", "default"), "decode_tps")]


# --- 10: other programs want the processor ---------------------------------------------------

# Ends by itself where this program could not end it.
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def busy(processes):
    """So many other programs that never rest."""
    running = []
    try:
        for _ in range(processes):
            running.append(subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.DEVNULL))
        # They compete from the first sample on, not while Python starts.
        time.sleep(0.3 if running else 0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def thread_counts(most):
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def load(bench):
    prompt, answer = bench.sizes["load"]
    cores = len(os.sched_getaffinity(0))

    def sample(side, seed):
        done = side.ask(tokens=bench.corpus.prompt(prompt, f"load {seed}"), max_tokens=answer, ignore_end=True,
                        speculation="off").wait()
        return {"decode_tps": done.decode_tps}

    fixed = [f"fixed {count}" for count in thread_counts(bench.options.threads)]
    samples = {}
    with contextlib.ExitStack() as stack:
        sides = {"ours": bench.ours(), "default": bench.server(),
                 **{name: bench.ours("--no-adapt", threads=int(name.split()[1])) for name in fixed}}
        for side in sides.values():
            warm(bench, stack.enter_context(side))
        for each in (0, 1, 2):
            with busy(each * cores):
                found = bench.in_rounds(sides, lambda side, seed, each=each: sample(side, f"{each} {seed}"))
            samples |= {f"{name}, {each} a core": values for name, values in found.items()}
    rows = []
    for each in (0, 1, 2):
        def median(name):
            return statistics.median(found["decode_tps"] for found in samples[f"{name}, {each} a core"])
        best = max(fixed, key=median)
        words = f"decode beside {each} busy processes a core" if each else "decode beside nothing"
        rows += [measure(words, "tok/s", samples, (f"ours, {each} a core", f"{best}, {each} a core"), "decode_tps",
                         against=f"our own, {best.split()[1]} threads fixed", target=("at least", 0.8)),
                 measure(words, "tok/s", samples, (f"ours, {each} a core", f"default, {each} a core"), "decode_tps",
                         against="llama-server, defaults")]
    return samples, rows


# --- 11: memory ------------------------------------------------------------------------------

def memory(bench):
    prompt, answer = bench.sizes["memory"]
    file = os.path.getsize(bench.options.model)

    def sample(start, seed):
        with start() as side:
            side.ask(tokens=bench.corpus.prompt(prompt, f"memory {seed}"), max_tokens=answer, ignore_end=True).wait()
            peak = resident_peak_bytes(side.pid)
            if isinstance(side, Ours):
                loaded = side.facts["loaded"]
                compute = sum(buffer["compute"] for buffer in loaded["memory"]["buffers"])
                return {"peak": peak, "kv": loaded["kv_tokens"] * loaded["kv_token_size"], "compute": compute}
            return {"peak": peak, **buffers(side.words())}

    samples = bench.in_rounds({"ours": bench.ours, "default": bench.server}, sample)
    if not all(found["kv"] and found["compute"] for found in samples["default"]):
        raise Failed("llama-server's log names no KV and compute buffers")
    for found in samples["ours"] + samples["default"]:
        found["rest_mb"] = (found["peak"] - file - found["kv"] - found["compute"]) / 1e6
    return samples, [
        measure("peak memory beyond weights, KV cache and compute buffers", "MB", samples, ("ours", "default"), "rest_mb",
                higher_is_better=False, target=("value at most", 20)),
        measure("peak memory", "MB", samples, ("ours", "default"), lambda found: found["peak"] / 1e6, higher_is_better=False)]


CASES = {case.__name__: case for case in (one, eight, gap, prefix, restart, agent, rewrite, free, schema, load, memory)}
