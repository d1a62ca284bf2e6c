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
import shutil
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
# What keeps requests from being refused for what no schema says. Each member is tried alone, in all its forms, by
# crates/tieline-server/tests/it/bodies.rs. Members that go with no others, or only with one more:
LONELY = {
    "adapters", "background", "best_of", "deterministic", "echo", "files", "grammar", "images", "input_prefix",
    "input_suffix", "json_schema", "lark", "previous_response_id", "raw", "regex", "suffix", "tool_calls",
    "top_logprobs",
}  # fmt: skip
# Members that the service bounds further, or that name what is there.
TAME = {
    "n": {"type": "integer", "minimum": 1, "maximum": 8},
    "dimensions": {"type": "integer", "minimum": 1, "maximum": 4},
    "tool_choice": {"type": "null"},
    "response_fields": {"type": "null"},
    "from": {"type": "string", "enum": MODELS},
    "reference": {"type": "string", "enum": MODELS},
}
# Members of one form alone: a prompt may be null to /infill, which reads the same form.
OF_FORM = {"LlamaCompletionRequest": {"prompt": {"type": "string"}}}
# Kinds of messages and of their parts that stand alone.
WORDS = {
    "PartKind": ["text", "input_text"],
    "AnthropicPartKind": ["text"],
    "AnthropicRole": ["user", "system"],
    "InputItemKind": ["message"],
    "Overflow": ["error", "drop_oldest"],
}
# Routes that refuse whatever they are asked, or what no scripted model has.
REFUSED = {
    "POST /api/me", "POST /api/push", "POST /api/copy", "DELETE /api/delete", "POST /api/pull",
    "HEAD /api/blobs/{digest}", "POST /api/blobs/{digest}", "POST /v1/responses/{id}/cancel", "GET /v1/responses/{id}",
    "DELETE /v1/responses/{id}", "GET /v1/responses/{id}/input_items", "GET /tieline/v1/decisions/{id}",
    "DELETE /tieline/v1/models/{name}",
}  # fmt: skip
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


def tamed(value):
    """A request's form, or a part of it, as a service with scripted models can grant it."""
    if isinstance(value, list):
        return [tamed(part) for part in value]
    if not isinstance(value, dict):
        return value
    value = {name: tamed(part) for name, part in value.items()}
    members = value.get("properties")
    if isinstance(members, dict):
        for name in LONELY & members.keys() - set(value.get("required", [])):
            del members[name]
        for name in TAME.keys() & members.keys():
            members[name] = TAME[name]
        if "model" in members:
            members["model"] = {"type": "string", "enum": MODELS}
            value["required"] = sorted({*value.get("required", []), "model"})
    if value.get("in") in ("path", "query") and value.get("name") in ("name", "model"):
        value |= {"required": True, "schema": {"type": "string", "enum": MODELS}}
    return value


def asked(value, schemas):
    """The names of the forms that these refer to, and those that they refer to."""
    names, left = set(), [value]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value.values()
            name = value.get("$ref", "").rpartition("/")[2]
            if name and name not in names:
                names.add(name)
                left.append(schemas[name])
    return names


def document(address, scratch):
    """The service's document, ready for schemathesis, as a file."""
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as answer:
        whole = json.load(answer)
    schemas = whole["components"]["schemas"]
    operations = [operation for methods in whole["paths"].values() for operation in methods.values()]
    for operation in operations:
        operation["parameters"] = tamed(operation.get("parameters", []))
        for content in operation["responses"].get("200", {}).get("content", {}).values():
            if "x-item-schema" in content:
                # Schemathesis reads it as an event's form. The tests of the server look at each event.
                del content["schema"]
    for name in asked([operation.get("requestBody") for operation in operations], schemas):
        schemas[name] = tamed(schemas[name])
    for name, members in OF_FORM.items():
        schemas[name]["properties"] |= members
    for name, words in WORDS.items():
        schemas[name] = {"type": "string", "enum": words}
    path = pathlib.Path(scratch) / "openapi.json"
    path.write_text(json.dumps(whole))
    return path


def told(counts):
    """How many requests that fit the document were granted; whether that is most of them on each route."""
    routes = json.loads(counts.read_text())
    few, granted, asked = [], 0, 0
    for route, answers in sorted(routes.items()):
        fit = {name: count for name, count in answers.items() if name.startswith("fits")}
        ok, all_ = fit.get("fits 2xx", 0), sum(fit.values())
        granted, asked = granted + ok, asked + all_
        if ok * 2 < all_ or not all_:
            few.append(route)
            print(f"  {route}: {ok} of {all_}")
    everything = sum(sum(answers.values()) for answers in routes.values())
    print(f"check_openapi: {everything} requests, {asked} that fit, {granted} of those answered with 2xx")
    unexpected = sorted(set(few) - REFUSED)
    if unexpected:
        print(f"check_openapi: most were refused: {', '.join(unexpected)}", file=sys.stderr)
    return bool(routes) and not unexpected


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=25, help="requests of each kind to each route")
    parser.add_argument("--limit", type=int, default=900, help="the most seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--key", help="a bearer token, where the service asks for one")
    options = parser.parse_args()
    folder = environment()
    service, address = serve()
    command = [
        folder / "bin" / "schemathesis", "run", "--url", address,
        "--checks", ",".join(CHECKS), "--max-examples", str(options.examples),
        "--seed", str(options.seed), "--request-timeout", "10", "--continue-on-failure",
        # It has no end.
        "--exclude-path", "/tieline/v1/events",
        # It says 501, as llama-server does, and any such status is taken for a fault.
        "--exclude-path", "/slots/{id}",
        # A stateful phase would follow links; the document has none.
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
    ]  # fmt: skip
    if options.key:
        command += ["--header", f"Authorization: Bearer {options.key}"]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            command.append(document(address, scratch))
            counts = pathlib.Path(scratch) / "counts.json"
            shutil.copy(ROOT / "scripts" / "check_openapi_count.py", scratch)
            hooks = {
                "SCHEMATHESIS_HOOKS": "check_openapi_count",
                # Beside this script are names of other modules.
                "PYTHONPATH": scratch,
                "CHECK_OPENAPI_COUNT": str(counts),
            }
            run = subprocess.run(command, cwd=scratch, timeout=options.limit, env=os.environ | hooks)
            reached = told(counts)
            return run.returncode or int(not reached)
    except subprocess.TimeoutExpired:
        print(f"check_openapi: not done after {options.limit} s", file=sys.stderr)
        return 2
    finally:
        service.kill()
        service.wait()


if __name__ == "__main__":
    sys.exit(main())
