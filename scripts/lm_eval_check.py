#!/usr/bin/env python3
"""Compares the log-likelihoods that lm-evaluation-harness gets from `tieline serve` with the engine's own.

Starts the server, runs a task of a few lines (tests/lm_eval) through lm_eval's local-completions, and asks
`tieline run --prompt-logprobs` for the same texts. They are the same weights in other batches, so quantised weights
may differ by rounding: TOLERANCE, in nats for each token. The harness lives in an environment in the user's cache.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
TASK = ROOT / "tests" / "lm_eval"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tieline" / "lm-eval"
PINS = ["lm-eval[api]==0.4.13"]
TOLERANCE = 0.05
DEADLINE_S = 600


def harness():
    """The program lm_eval, installed where it lacks."""
    folder = CACHE / hashlib.sha256("\n".join(PINS).encode()).hexdigest()[:16]
    program = folder / "bin" / "lm_eval"
    if not program.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PINS], check=True)
    return program


def samples(program, url, model, work):
    """What the harness got: for each text and its end the log-likelihood, and whether it is the greedy one."""
    task = (TASK / "capitals.yaml").read_text().replace("__HERE__", str(TASK))
    (work / "capitals.yaml").write_text(task)
    out = work / "out"
    command = [program, "--model", "local-completions", "--tasks", "tieline_capitals", "--include_path", work]
    arguments = f"model={model},base_url={url}/v1/completions,num_concurrent=1,max_retries=1"
    command += ["--model_args", arguments, "--log_samples", "--output_path", out]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hf")}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode != 0:
        sys.exit(f"lm_eval failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = []
    for path in out.rglob("samples_*.jsonl"):
        for line in path.read_text().splitlines():
            sample = json.loads(line)
            requests = sample["arguments"]
            for index, reply in enumerate(sample["filtered_resps"]):
                request = requests[f"gen_args_{index}"] if isinstance(requests, dict) else requests[index]
                context, end = (request["arg_0"], request["arg_1"]) if isinstance(request, dict) else request
                found.append((context, end, float(reply[0]), str(reply[1]) == "True"))
    return found


def own(tieline, model, text, env):
    """The engine's log-probabilities of a text's tokens, from the second on."""
    command = [tieline, "run", model, "--raw", "--json", "-n", "0", "--prompt-logprobs", "1", "--no-cache", text]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    return json.loads(done.stdout)["prompt_logprobs"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tieline", default=ROOT / "target" / "release" / "tieline")
    parser.add_argument("--model", default="smollm2", help="a model that is here: `tieline list`")
    options = parser.parse_args()
    program = harness()
    server = subprocess.Popen(
        [options.tieline, "serve", "--listen", "127.0.0.1:0", "--json", "--log", "error"],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        url = json.loads(server.stdout.readline())["listening"][0]
        with tempfile.TemporaryDirectory() as work:
            found = samples(program, url, options.model, pathlib.Path(work))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    if not found:
        sys.exit("lm_eval gave no samples")
    worst, greedy_same = 0.0, 0
    for context, end, theirs, is_greedy in found:
        whole = own(options.tieline, options.model, context + end, os.environ)
        start = len(own(options.tieline, options.model, context, os.environ))
        rest = whole[start:]
        ours = sum(entry["logprob"] for entry in rest)
        best = all(entry["logprob"] >= max(other["logprob"] for other in entry["alternatives"]) for entry in rest)
        greedy_same += best == is_greedy
        worst = max(worst, abs(ours - theirs) / max(1, len(rest)))
        print(json.dumps({"end": end, "tokens": len(rest), "lm_eval": round(theirs, 4), "engine": round(ours, 4)}))
    print(f"{len(found)} ends: at most {worst:.4f} nats a token apart; greedy alike for {greedy_same}")
    if worst > TOLERANCE or greedy_same != len(found):
        sys.exit(f"they differ: {TOLERANCE} nats a token are allowed")


if __name__ == "__main__":
    main()
