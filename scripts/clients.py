#!/usr/bin/env python3
"""Runs clients that others wrote against scripted models, and writes what works into docs/conformance.md.

The clients and all that they need are pinned in tests/clients. Their environments are made once, in the user's
cache, under a name made of the pins; making them is the only thing here that uses the network. Each driver in
tests/clients prints one line of JSON for each feature. A feature that fails fails the run.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "tests" / "clients"
DOCUMENT = ROOT / "docs" / "conformance.md"
AGENTS_DOCUMENT = ROOT / "docs" / "conformance-agents.md"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tieline" / "clients"
DRIVER_S = 180
START_S = 20

FEATURES = {
    "chat": "a whole answer",
    "stream": "an answer in pieces",
    "tools": "a call of a tool, and the turn after it",
    "tools_stream": "a call in pieces",
    "json_schema": "an answer that keeps to a schema",
    "embeddings": "vectors of texts",
    "reasoning": "thought apart from text",
    "usage": "tokens counted, also at a stream's end",
    "models": "the list of models",
    "create": "a file uploaded, a model made of it, asked and deleted",
    "count_tokens": "a prompt counted before it is sent",
    "unknown_model": "no such model: the client's own error, 404",
    "too_long": "a prompt beyond the context: the client's own error, 400",
    "busy": "a full queue: the client's own error, 503",
    "broken_stream": "an answer that breaks off is an error, not an end",
    "cancel": "a client that leaves ends the model's work",
}

# Environment, driver, its words.
DRIVERS = [
    ("sdk", "drive_openai.py"),
    ("sdk", "drive_openai_responses.py"),
    ("sdk", "drive_openai_completions.py"),
    ("sdk", "drive_anthropic.py"),
    ("sdk", "drive_ollama.py"),
    ("frameworks", "drive_langchain.py", "openai"),
    ("frameworks", "drive_langchain.py", "responses"),
    ("frameworks", "drive_langchain.py", "anthropic"),
    ("frameworks", "drive_langchain.py", "ollama"),
    ("frameworks", "drive_llama_index.py", "openai"),
    ("frameworks", "drive_llama_index.py", "ollama"),
    ("frameworks", "drive_litellm.py", "openai"),
    ("frameworks", "drive_litellm.py", "anthropic"),
    ("frameworks", "drive_litellm.py", "ollama"),
    ("node", "drive_openai.mjs"),
    ("node", "drive_openai_responses.mjs"),
    ("node", "drive_anthropic.mjs"),
    ("node", "drive_ollama.mjs"),
    ("node", "drive_ai.mjs", "compatible"),
    ("node", "drive_ai.mjs", "openai"),
    ("node", "drive_ai.mjs", "anthropic"),
]

# Apart, since they are large: a turn each.
AGENTS = [
    ("agents", "drive_agent.py", "codex"),
    ("agents", "drive_agent.py", "opencode"),
    ("agents", "drive_agent.py", "claude"),
    ("agents", "drive_agent.py", "continue"),
    ("aider", "drive_agent.py", "aider"),
]
# Environments that npm makes, from the folder of the same name.
NPM = {"node", "agents"}


def say(text):
    print(f"clients: {text}", file=sys.stderr, flush=True)


def environment(kind):
    """The folder of a ready environment, made when it is not there yet."""
    pins = CLIENTS / (f"{kind}/package-lock.json" if kind in NPM else f"{kind}.txt")
    system = "" if kind in NPM else f"python{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256(pins.read_bytes() + system.encode()).hexdigest()[:16]
    folder = CACHE / f"{kind}-{name}"
    ready = folder / ".ready"
    if ready.exists():
        return folder
    say(f"making {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if kind in NPM:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(CLIENTS / kind / file, folder)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    else:
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", pins], check=True)
    ready.touch()
    return folder


def command(kind, folder, driver, *words):
    if kind == "node":
        return ["node", str(CLIENTS / "node" / driver), *words]
    python = sys.executable if kind in NPM else str(folder / "bin" / "python")
    return [python, "-B", str(CLIENTS / driver), *words]


def drive(job, url):
    """The lines of one driver; one that dies has a line that says so."""
    kind, driver, *words = job
    folder = environment(kind)
    # Only what it needs: a key or a proxy of the caller's is none of a client's business.
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    with tempfile.TemporaryDirectory() as home:
        settings = {"TIELINE_URL": url, "TIELINE_CLIENTS_FOLDER": str(folder), "HOME": home}
        more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
        said = subprocess.Popen(
            command(kind, folder, driver, *words),
            env={**kept, **settings, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = said.communicate(timeout=DRIVER_S)
        except subprocess.TimeoutExpired:
            said.kill()
            out, err = said.communicate()
            err += f"\nended after {DRIVER_S} s"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    name = " ".join([driver, *words])
    if said.returncode != 0 or not lines:
        last = (err.strip().splitlines() or ["it said nothing"])[-1]
        lines.append({"client": name, "version": "", "feature": "driver", "ok": False, "note": last})
    for line in lines:
        if line["ok"] is False:
            say(f"FAIL {line['client']} {line['feature']}: {line['note']}")
    return lines


class Server:
    """The scripted models, on a free port."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "--port", "0"], stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        line = self.process.stdout.readline().strip()
        if not line.startswith("listening on "):
            raise SystemExit("the server did not start")
        return line.removeprefix("listening on ")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=START_S)


def cell(line):
    if line is None:
        return ""
    return {True: "yes", False: "FAIL", None: "-"}[line["ok"]]


def document(lines, title, target):
    """The table, what it means, and why something is missing."""
    clients = {}
    for line in lines:
        clients.setdefault((line["client"], line["version"]), {})[line["feature"]] = line
    asked = {line["feature"] for line in lines}
    features = {name: meaning for name, meaning in FEATURES.items() if name in asked}
    text = [
        f"# {title}",
        "",
        f"Written by `make {target}`: each client is the real package, against models that say the same each time.",
        "Retries are off. `-`: the client or its API has no such thing; the reasons are below. An empty cell is not tried.",
        "Nothing here says how good a model's answers are.",
        "",
        "| client | version | " + " | ".join(name.replace("_", " ") for name in features) + " |",
        "|---|---|" + "---|" * len(features),
    ]
    for (client, version), cells in clients.items():
        row = " | ".join(cell(cells.get(name)) for name in features)
        text.append(f"| {client} | {version} | {row} |")
    text += ["", "What the columns ask:", ""]
    text += [f"- {name.replace('_', ' ')}: {meaning}" for name, meaning in features.items()]
    if any(line["ok"] is None for line in lines):
        text += ["", "Why something is `-`:", ""]
    for (client, _), cells in clients.items():
        reasons = {}
        for line in cells.values():
            if line["ok"] is None:
                reasons.setdefault(line["note"], []).append(line["feature"].replace("_", " "))
        text += [f"- {client}: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", help="the example `scripted`, built; else it is built")
    parser.add_argument("--only", default="", help="drivers whose name has this; writes no document")
    parser.add_argument("--agents", action="store_true", help="agents instead: docs/conformance-agents.md")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    parser.add_argument("--json", help="also write the lines here")
    arguments = parser.parse_args()
    jobs = [job for job in (AGENTS if arguments.agents else DRIVERS) if arguments.only in " ".join(job)]
    if arguments.install:
        for kind in sorted({job[0] for job in jobs}):
            print(environment(kind))
        return 0
    program = arguments.server
    if program is None:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
        build = ["cargo", "build", "--quiet", "-p", "tieline-server", "--example", "scripted"]
        subprocess.run(build, cwd=ROOT, check=True)
        program = str(target / "debug" / "examples" / "scripted")
    lines = []
    with Server(program) as url:
        for job in jobs:
            say(" ".join(job))
            lines += drive(job, url)
    if arguments.json:
        pathlib.Path(arguments.json).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not arguments.only and arguments.agents:
        AGENTS_DOCUMENT.write_text(document(lines, "Which agents work", "agents"))
    elif not arguments.only:
        DOCUMENT.write_text(document(lines, "Which clients work", "clients"))
    failed = sum(line["ok"] is False for line in lines)
    passed = sum(line["ok"] is True for line in lines)
    say(f"{passed} pass, {failed} fail, {len(lines) - passed - failed} not in the client")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
