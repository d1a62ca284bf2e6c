#!/usr/bin/env python3
"""Runs what proves the engine's promises, at full count, and writes what was counted as JSON.

A prover is a command whose tests print lines of the form `PROOF {...}`, one JSON object each. To add one,
add it to PROVERS. The same tests run in `make test`, with smaller counts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

MARK = "PROOF "
# Of the unsealed speed.
LEAST_THOUSANDTHS = 990


def provers(arguments):
    """Name, command, and what its environment has besides."""
    runner_test = [
        "cargo", "test", "--release", "-p", "tieline-runner", "--features", "attacks",
        "--target-dir", arguments.runner_target, "--test", "it", "--", "--nocapture",
    ]
    engine_test = ["cargo", "test", "-p", "tieline-engine", "--test", "it", "--", "--nocapture"]
    example = ["cargo", "run", "--quiet", "-p", "tieline-lab", "--example"]
    smollm2 = test_model("smollm2")
    native = {"RUSTFLAGS": "-C target-cpu=native"}
    engine = {"TIELINE_RUNNER": arguments.runner, "TIELINE_MUTANTS": str(arguments.mutants)}
    return [
        ("escapes", [*runner_test, "attacks::"], native),
        ("calls", [*runner_test, "calls::"], native),
        # Alone on the machine, or the figures mean nothing.
        ("seal", [*runner_test, "--test-threads=1", "seal::"], {**native, "TIELINE_SEAL_ROUNDS": "41"}),
        ("two models by turns", [*engine_test, "pool::two_models_that_fit"], engine),
        ("hostile models", [*engine_test, "hostile::"], engine),
        ("kills", [*example, "prove_kills", "--", arguments.runner, smollm2, str(arguments.kills)], {}),
        ("memory plans", [*example, "prove_memory", "--", arguments.runner, smollm2, test_model("gemma3")], {}),
    ]


def test_model(name):
    script = os.path.join(os.path.dirname(__file__), "fetch_test_model.py")
    return subprocess.run([sys.executable, script, name], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def proofs(output):
    """The objects among a prover's lines; a test's name may stand before the mark."""
    for line in output.splitlines():
        _, mark, proof = line.partition(MARK)
        if mark:
            yield json.loads(proof)


def is_fast_enough(proof):
    """What is sealed is to be as fast as what is not, but for a hundredth: by the median of many rounds."""
    ratios = [value["median"] for key, value in proof.items() if key.endswith("_thousandths")]
    return all(ratio >= LEAST_THOUSANDTHS for ratio in ratios)


def run(name, command, environment):
    started = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )
    found = list(proofs(done.stdout))
    passed = done.returncode == 0 and bool(found) and all(map(is_fast_enough, found))
    if not passed:
        sys.stderr.write(done.stdout)
    seconds = round(time.monotonic() - started, 1)
    return {"prover": name, "passed": passed, "seconds": seconds, "proofs": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", required=True, help="a runner as it is released")
    parser.add_argument("--runner-target", required=True, help="where the runner is built")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", action="append", help="the name of a prover; may be repeated")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    chosen = [
        prover for prover in provers(arguments)
        if not arguments.only or prover[0] in arguments.only
    ]
    load = os.getloadavg()[0]
    # What is committed meanwhile is not what runs.
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True, check=False
    )
    results = []
    for name, command, environment in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(run(name, command, environment))
    report = {
        "revision": revision.stdout.strip(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "results": results,
    }
    os.makedirs(os.path.dirname(os.path.abspath(arguments.out)), exist_ok=True)
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")
    for result in results:
        print(f"{'passed' if result['passed'] else 'FAILED'}  {result['prover']}  {result['seconds']:.0f} s")
        for proof in result["proofs"]:
            print(f"        {', '.join(f'{name} {value}' for name, value in proof.items())}")
    return 0 if chosen and all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
