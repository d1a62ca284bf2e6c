#!/usr/bin/env python3
"""Asks every route of the OpenAPI document what it says may be asked, and more, and checks what comes back.

Starts the service with scripted models, and schemathesis, pinned, in an environment of its own under the user's
cache. It is no part of `make test`: it takes minutes where nothing is built. Ends with schemathesis's own status.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

PACKAGES = ["schemathesis==4.32.5"]
# What a caller may rely on: no failure of ours, a status and a media type that are declared, bodies of errors as
# described, and 405 for other methods. Not that all bodies of the declared form are accepted: many limits are
# not written as schemas, and a prompt that names no model is refused where several are here.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# Scripted models that neither refuse nor break off nor take long. Guessed names would reach nothing.
MODELS = ["mock", "thinker", "caller", "json"]
ROOT = pathlib.Path(__file__).resolve().parent.parent


def environment():
    """The folder of an environment with exactly these packages; made once."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    key = hashlib.sha256("\n".join([sys.version, *PACKAGES]).encode()).hexdigest()[:12]
    folder = root / "tieline" / f"check-openapi-{key}"
    done = folder / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(pip, check=True)
        done.touch()
    return folder


def serve():
    """The service, and where it listens."""
    build = ["cargo", "build", "--quiet", "-p", "tieline-server", "--example", "scripted"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    program = target / "debug" / "examples" / "scripted"
    service = subprocess.Popen([program, "--port", "0"], stdout=subprocess.PIPE, text=True)
    words = service.stdout.readline().split()
    if not words or not words[-1].startswith("http"):
        service.kill()
        sys.exit("check_openapi: the service did not say where it listens")
    return service, words[-1]


def named(value):
    """The document, or a part of it, with names of models that are here."""
    if isinstance(value, list):
        return [named(part) for part in value]
    if not isinstance(value, dict):
        return value
    value = {name: named(part) for name, part in value.items()}
    if isinstance(value.get("properties"), dict) and "model" in value["properties"]:
        value["properties"]["model"] = {"type": "string", "enum": MODELS}
        value["required"] = sorted({*value.get("required", []), "model"})
    if value.get("in") == "path" and value.get("name") in ("name", "model"):
        value["schema"] = {"type": "string", "enum": MODELS}
    return value


def document(address, scratch):
    """The service's document, ready for schemathesis, as a file."""
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as answer:
        whole = named(json.load(answer))
    path = pathlib.Path(scratch) / "openapi.json"
    path.write_text(json.dumps(whole))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=25, help="requests of each kind to each route")
    parser.add_argument("--limit", type=int, default=300, help="the most seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--key", help="a bearer token, where the service asks for one")
    options = parser.parse_args()
    folder = environment()
    service, address = serve()
    command = [
        folder / "bin" / "schemathesis", "run", "--url", address,
        "--checks", ",".join(CHECKS), "--max-examples", str(options.examples),
        "--seed", str(options.seed), "--request-timeout", "10", "--continue-on-failure",
        # A stateful phase would follow links; the document has none.
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
    ]  # fmt: skip
    if options.key:
        command += ["--header", f"Authorization: Bearer {options.key}"]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            command.append(document(address, scratch))
            return subprocess.run(command, cwd=scratch, timeout=options.limit).returncode
    except subprocess.TimeoutExpired:
        print(f"check_openapi: not done after {options.limit} s", file=sys.stderr)
        return 2
    finally:
        service.kill()
        service.wait()


if __name__ == "__main__":
    sys.exit(main())
