"""The gateways that are compared: how each is started in front of one upstream that speaks OpenAI's chat.

Each needs to be installed first, in a place of its own under the folder GATEWAYS: README.md has the commands. What is not
there is left out, and said. Every package of theirs is pinned by its hash, in LOCKS; nginx is the system's own.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).parent
# What is installed of each peer, to the byte.
LOCKS = {"litellm": "litellm.txt", "tensorzero": "tensorzero.txt", "portkey": "portkey/package-lock.json"}

TENSORZERO = """
import sys, time, tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print("URL", gateway.base_url, flush=True)
time.sleep(100000)
"""


@dataclass
class Gateway:
    """One gateway that runs."""

    name: str
    url: str
    model: str
    version: str
    headers: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None
    cold_start_s: float | None = None

    def request(self, prompt, stream):
        body = {"model": self.model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        return json.dumps(body)

    def family(self):
        """The numbers of the process and its children."""
        found, left = [], [] if self.process is None else [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                left += [int(child) for child in children.read_text().split()]
        return found

    def memory_kb(self):
        """Resident size of the process and its children now."""
        total = 0
        for pid in self.family():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return total

    def cpu_s(self):
        """Processor time of the process and its children so far."""
        ticks = 0
        for pid in self.family():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def answers(gateway):
    """Whether a whole answer comes; None while nobody listens."""
    headers = {"content-type": "application/json", "Authorization": "Bearer none", **gateway.headers}
    body = gateway.request("Hello", False).encode()
    request = urllib.request.Request(gateway.url + "/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return "word" in json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        text = error.read()[:500]
        if error.code in (502, 503):
            return None
        raise RuntimeError(f"{gateway.name}: {error.code} {text!r}") from error
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def wait_for(gateway, begun, limit_s=120):
    while time.monotonic() - begun < limit_s:
        if gateway.process is not None and gateway.process.poll() is not None:
            raise RuntimeError(f"{gateway.name} ended with {gateway.process.returncode}")
        if answers(gateway):
            gateway.cold_start_s = time.monotonic() - begun
            return gateway
        time.sleep(0.02)
    gateway.end()
    raise RuntimeError(f"{gateway.name} did not answer within {limit_s} s")


def start(command, env, log, stdout=None):
    return subprocess.Popen(command, env=env, stdout=stdout or log, stderr=log, stdin=subprocess.DEVNULL)


def tieline(tieline_program, upstream, port, folder, log, treatment="as-is"):
    folder = folder / f"tieline-{treatment}"
    folder.mkdir()
    policy = folder / "policy.toml"
    policy.write_text(f"""
[backends.mock]
protocol = "openai"
url = "{upstream}"
zone = "cloud"

[backends.mock.models.mock]
context = 100000

[[rule]]
name = "all of it"
class = "internal"
zone = "cloud"
as = "{treatment}"
""")
    env = {"TIELINE_HOME": str(folder / "home"), "TIELINE_POLICY": str(policy), "TIELINE_LOG": "warn", "PATH": "/usr/bin:/bin"}
    said = subprocess.run(
        [tieline_program, "key", "create", "bench", "--json"], env=env, capture_output=True, text=True, check=True
    ).stdout
    # Each request shows a key, which is looked up and whose limits are counted.
    headers = {"Authorization": "Bearer " + json.loads(said)["key"]}
    begun = time.monotonic()
    process = start([tieline_program, "serve", "--listen", f"127.0.0.1:{port}"], env, log)
    version = subprocess.run([tieline_program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    name = "tieline" if treatment == "as-is" else f"tieline, {treatment}"
    gateway = Gateway(name, f"http://127.0.0.1:{port}/v1", "mock/mock", version, headers, process)
    return wait_for(gateway, begun)


def litellm(folder, upstream, port, scratch, log):
    config = scratch / "litellm.yaml"
    config.write_text(f"""
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "{upstream}", api_key: none}}
litellm_settings: {{telemetry: false, drop_params: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
""")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    begun = time.monotonic()
    command = [str(folder / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    process = start([*command, "--num_workers", "1"], env, log)
    version = "litellm " + installed(folder, "litellm")
    return wait_for(Gateway("litellm", f"http://127.0.0.1:{port}/v1", "mock", version, process=process), begun)


def tensorzero(folder, upstream, port, scratch, log):
    config = scratch / "tensorzero.toml"
    config.write_text(f"""
[gateway.observability]
enabled = false
[models.mock]
routing = ["mock"]
[models.mock.providers.mock]
type = "openai"
model_name = "mock"
api_base = "{upstream}"
api_key_location = "none"
""")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch)}
    begun = time.monotonic()
    process = start([str(folder / "bin/python"), "-c", TENSORZERO, str(config)], env, log, subprocess.PIPE)
    # Its log goes to stdout too.
    said = (line.decode() for line in process.stdout)
    url = next(line for line in said if line.startswith("URL ")).split()[1].rstrip("/")
    name = "tensorzero::model_name::mock"
    gateway = Gateway("tensorzero", url, name, "tensorzero " + installed(folder, "tensorzero"), process=process)
    return wait_for(gateway, begun)


def portkey(folder, upstream, port, scratch, log):
    package = folder / "node_modules/@portkey-ai/gateway"
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(scratch), "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    begun = time.monotonic()
    process = start(["node", str(package / "build/start-server.js"), f"--port={port}", "--headless"], env, log)
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
    version = "portkey " + json.loads((package / "package.json").read_text())["version"]
    gateway = Gateway("portkey", f"http://127.0.0.1:{port}/v1", "mock", version, headers, process)
    return wait_for(gateway, begun)


def nginx(_folder, upstream, port, scratch, log):
    """The plain pass-through: it reads no request and counts nothing."""
    place = scratch / "nginx"
    place.mkdir()
    host, path = upstream.removeprefix("http://").split("/", 1)
    (place / "nginx.conf").write_text(f"""
worker_processes 1;
daemon off;
pid {place}/pid;
error_log {place}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};
  uwsgi_temp_path {place}; scgi_temp_path {place};
  keepalive_requests 10000000;
  upstream mock {{ server {host}; keepalive 64; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mock/{path.removesuffix("v1")};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
""")
    begun = time.monotonic()
    process = start([shutil.which("nginx"), "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")], {}, log)
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    version = said.strip().rsplit("/", 1)[1]
    return wait_for(Gateway("nginx", f"http://127.0.0.1:{port}/v1", "mock", f"nginx {version}", process=process), begun)


def locked(folder):
    """Of each peer's lock: its SHA-256, and which packages are installed otherwise than it says; None: it is not there."""
    told = {}
    for name, lock in LOCKS.items():
        otherwise = pip_otherwise if lock.endswith(".txt") else npm_otherwise
        is_there = (folder / name).exists()
        told[name] = {
            "lock": lock,
            "sha256": hashlib.sha256((HERE / lock).read_bytes()).hexdigest(),
            "otherwise": sorted(otherwise(folder / name, HERE / lock)) if is_there else None,
        }
    return told


def pip_otherwise(folder, lock):
    """Packages of a virtual environment whose version is not the lock's. What it was made with is not of the lock."""
    plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()  # noqa: E731
    pins = re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock.read_text())
    versions = {plain(name): version for name, version in pins}
    for found in folder.glob("lib/python*/site-packages/*.dist-info"):
        name, version = found.name.removesuffix(".dist-info").rsplit("-", 1)
        if plain(name) not in ("pip", "setuptools", "wheel") and versions.get(plain(name)) != version:
            yield f"{plain(name)} {version}"


def npm_otherwise(folder, lock):
    """Packages of a folder whose bytes, as npm noted them, are not the lock's."""
    wanted, note = json.loads(lock.read_text())["packages"], folder / "node_modules/.package-lock.json"
    if not note.exists():
        yield "all of it: npm noted nothing"
        return
    for path, found in json.loads(note.read_text())["packages"].items():
        if found["integrity"] != wanted.get(path, {}).get("integrity"):
            yield f"{path.removeprefix('node_modules/')} {found['version']}"


def installed(folder, package):
    found = next(folder.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")


def is_installed(folder, name):
    return shutil.which(name) if name == "nginx" else (folder / name).exists()


def start_all(folder, tieline_program, upstream, log, only=None):
    """Each gateway that is there, in front of the upstream; and why others are not."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="gateways-"))
    direct = Gateway("direct", upstream, "mock", "the upstream itself")
    running, missing = [direct], {}
    peers = {"nginx": nginx, "litellm": litellm, "tensorzero": tensorzero, "portkey": portkey}
    for number, (name, begin) in enumerate([("tieline", None), *peers.items()]):
        if only and name not in only:
            continue
        try:
            port = 18400 + number
            if begin is None:
                running.append(tieline(tieline_program, upstream, port, scratch, log))
                running.append(tieline(tieline_program, upstream, port + 100, scratch, log, "redacted"))
            elif not is_installed(folder, name):
                missing[name] = "not installed"
            else:
                running.append(begin(folder / name, upstream, port, scratch, log))
        except (RuntimeError, OSError) as error:
            missing[name] = str(error)
    return running, missing
