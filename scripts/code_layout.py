#!/usr/bin/env python3
"""Writes crates/tieline/layout.ld: which code of a server is used, so that the linker puts it side by side.

`code_layout.py target/release/tieline`, for a release build of this tree. It runs `tieline serve` under callgrind,
once idle and then with requests in four dialects before an upstream of its own, and lists what ran in three groups:
at the start alone, in both, with requests alone; the two latter by how much ran there. Names have no hash at their end,
so they stay true from build to build, but for generic functions of which few copies are used. `code_layout.py --check
BINARY` says how much of the list a binary has: less than nine tenths, and it is time to run this again. Needs valgrind
and nm, no network.
"""

import collections
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

LAYOUT = pathlib.Path(__file__).parent.parent / "crates" / "tieline" / "layout.ld"
HEAD = "/* Written by scripts/code_layout.py; read by crates/tieline/build.rs. Code that a server uses, side by side. */\n"
POLICY = """
[backends.mock]
protocol = "openai"
url = "http://127.0.0.1:{port}/v1"
zone = "cloud"
models.mock = {{ context = 100000, price = {{ input = 1, output = 2 }} }}
models.redacted = {{ context = 100000 }}
[[rule]]
name = "as it is"
class = "any"
zone = "cloud"
as = "as-is"
to = ["mock/mock"]
[[rule]]
name = "redacted"
class = "any"
zone = "cloud"
as = "redacted"
"""
# A name without its hash may be that of many functions: it keeps its hash where so much more would come with it.
MOST_TIMES = 1.5


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every chat at once with twenty words."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usage = {"prompt_tokens": 8, "completion_tokens": 20, "total_tokens": 28}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": "mock"}
        if asked.get("stream"):
            pieces = [{"delta": {"content": "word "}}] * 20 + [{"delta": {}, "finish_reason": "stop"}]
            chunks = [{**head, "choices": [{"index": 0, **piece}]} for piece in pieces]
            chunks.append({**head, "choices": [], "usage": usage})
            body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
            kind = "text/event-stream"
        else:
            message = {"role": "assistant", "content": "word " * 20}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body, kind = json.dumps({**head, "choices": [choice], "usage": usage}), "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def requests(url, key):
    """Whole answers and streams, in four dialects."""
    said = [{"role": "user", "content": "Write to jane.roe@corp.org: what is the capital of France?"}]
    for stream in (False, True):
        for model in ("mock/mock", "mock/redacted"):
            both = {"model": model, "stream": stream}
            yield f"{url}/v1/chat/completions", key, {**both, "messages": said}
            yield f"{url}/v1/messages", key, {**both, "messages": said, "max_tokens": 50}
            yield f"{url}/api/chat", key, {**both, "messages": said}
            yield f"{url}/v1/responses", key, {**both, "input": "What is the capital of France?"}


def ask(url, key, body):
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        answer.read()


def traced(binary, folder):
    """The functions that ran up to the first request and from it on, with their instructions."""
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    policy = folder / "policy.toml"
    policy.write_text(POLICY.format(port=upstream.server_port))
    env = {**os.environ, "TIELINE_HOME": str(folder / "home"), "TIELINE_POLICY": str(policy)}
    made = subprocess.run([binary, "key", "create", "layout", "--json"], env=env, check=True, capture_output=True)
    key = json.loads(made.stdout)["key"]
    out = folder / "out"
    valgrind = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={out}"]
    server = subprocess.Popen(
        [*valgrind, binary, "serve", "--listen", "127.0.0.1:0"], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        url = next(line.split()[-1] for line in server.stderr if line.startswith("listening on"))
        time.sleep(15)
        subprocess.run(["callgrind_control", "-d", str(server.pid)], check=True, stdout=subprocess.DEVNULL)
        time.sleep(2)
        for path in ("/v1/models", "/health", "/metrics"):
            ask(url + path, key, None)
        for _ in range(10):
            for request in requests(url, key):
                ask(*request)
        time.sleep(1)
    finally:
        server.terminate()
        server.wait(60)
        upstream.shutdown()
    return functions(f"{out}.1"), functions(out)


def functions(path):
    """Names of a callgrind file's functions that ran themselves, and how many instructions of them did."""
    names, ran, current, called = {}, collections.Counter(), None, False
    for line in open(path, errors="replace"):
        if found := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?", line):
            callee, number, name = found.groups()
            if name:
                names[number] = name.strip().split("'")[0]
            if not callee:
                current = number
        elif line.startswith("calls="):
            called = True
        elif cost := re.match(r"[+\-*\d]\S* (\d+)", line):
            # The line after a call is of whoever was called.
            if not called and current:
                ran[current] += int(cost[1])
            called = False
    return {names[number]: cost for number, cost in ran.items() if number in names}


def symbols(binary):
    listed = subprocess.run(["nm", "-S", "--defined-only", binary], check=True, capture_output=True, text=True).stdout
    fields = (line.split() for line in listed.splitlines())
    return {one[3]: int(one[1], 16) for one in fields if len(one) == 4 and one[2] in "tTwW"}


def pattern(symbol, hashed=False):
    """The section of a function, whatever the hash at the end of its name where that is not wanted."""
    name = re.sub(r"\.llvm\.\d+$", "", symbol)
    bare = name if hashed else re.sub(r"17h[0-9a-f]{16}E$", "17h*", name)
    return ".text." + bare.replace("[", "?").replace("]", "?")


def patterns(binary, start, later):
    """Sections in three groups, each once."""
    sizes = symbols(binary)
    used = {name for name in [*start, *later] if name in sizes}
    if len(used) < 1000:
        sys.exit(f"only {len(used)} functions of {binary} were seen: is it a release build with its symbols?")
    alike = collections.defaultdict(list)
    for name in sizes:
        alike[pattern(name)].append(name)
    groups = [
        [name for name in start if name not in later],
        sorted((name for name in start if name in later), key=later.get, reverse=True),
        sorted((name for name in later if name not in start), key=later.get, reverse=True),
    ]
    listed = set()
    for group in groups:
        kept = []
        for name in filter(used.__contains__, group):
            copies = alike[pattern(name)]
            own = sum(sizes[copy] for copy in copies if copy in used)
            one = pattern(name, hashed=sum(sizes[copy] for copy in copies) > MOST_TIMES * own)
            if one not in listed:
                kept.append(one)
            listed.add(one)
        yield kept


def check(binary):
    known = {pattern(name, hashed) for name in symbols(binary) for hashed in (False, True)}
    listed = re.findall(r"^\*\((\S+)\)$", LAYOUT.read_text(), re.M)
    found = sum(one in known for one in listed)
    print(f"{found} of {len(listed)} names are in {binary}")
    if found < 0.9 * len(listed):
        sys.exit("the list is old: run scripts/code_layout.py with this binary")


def main():
    if sys.argv[1] == "--check":
        return check(sys.argv[2])
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        start, later = traced(binary, pathlib.Path(folder))
    lines = [f"*({one})\n" for group in patterns(binary, start, later) for one in group]
    LAYOUT.write_text(HEAD + "SECTIONS { .text.used : {\n" + "".join(lines) + "} } INSERT BEFORE .text;\n")
    print(f"{LAYOUT}: {len(lines)} names")


if __name__ == "__main__":
    main()
