"""The two programs that answer, behind one interface: Tieline's engine through its driver, and llama-server.

Times of both are taken here, on one clock, when a line has been read.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

DEADLINE_S = 600
START_S = 120
STOP_S = 30


class Failed(Exception):
    """A program did not do what it should; its last words are in the message."""


class Pending:
    """An answer on its way. Filled by one reading thread, waited for by another."""

    def __init__(self, request, cancel):
        self.request, self._cancel = request, cancel
        self.changed = threading.Condition()
        self.sent = time.monotonic()
        self.times, self.text, self.usage, self.timing = [], [], {}, {}
        self.miss = self.error = self.ended = None

    # Called by the reader.
    def piece(self, text=""):
        with self.changed:
            self.times.append(time.monotonic())
            self.text.append(text)
            self.changed.notify_all()

    def end(self, error=None):
        with self.changed:
            if self.ended is None:
                self.ended, self.error = time.monotonic(), error
            self.changed.notify_all()

    # Called by the case.
    def until(self, condition, what, seconds=DEADLINE_S):
        with self.changed:
            if not self.changed.wait_for(lambda: self.ended or condition(), seconds):
                raise Failed(f"no {what} within {seconds} s")
            if self.error:
                raise Failed(f"{what}: {self.error}")
            return self

    def until_pieces(self, number):
        self.until(lambda: len(self.times) >= number, f"piece {number}")
        if len(self.times) < number:
            raise Failed(f"the answer ended after {len(self.times)} pieces, before piece {number}")
        return self

    def wait(self):
        """The whole answer."""
        self.until(lambda: False, "end of an answer")
        if not self.times:
            raise Failed("an answer without a token")
        return self

    def cancel(self):
        """Ends the answer early and waits until it is gone."""
        self._cancel(self)
        with self.changed:
            self.changed.wait_for(lambda: self.ended, STOP_S)

    # What was measured.
    @property
    def first_token_s(self):
        return self.times[0] - self.sent

    @property
    def prefill_tps(self):
        return (self.usage["prompt"] - self.usage["cached"]) / self.first_token_s

    @property
    def decode_tps(self):
        return decode_tps(self.usage["completion"], self.times)

    @property
    def answer(self):
        return "".join(self.text)


def decode_tps(completion, times):
    """Tokens after the first over the time from the first to the last."""
    if completion < 2 or times[-1] <= times[0]:
        raise Failed(f"an answer of {completion} tokens has no decode speed")
    return (completion - 1) / (times[-1] - times[0])


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Log:
    """What a program wrote to its standard error, in a file without a name; its end outlives the file."""

    def __init__(self):
        self.file, self.end = tempfile.TemporaryFile(), ""

    def words(self):
        # By position: the program goes on writing where it was.
        size = os.fstat(self.file.fileno()).st_size
        return os.pread(self.file.fileno(), size, 0).decode(errors="replace")

    def last_words(self):
        return self.end if self.file.closed else self.words()[-2000:]

    def close(self):
        self.end = self.last_words()
        self.file.close()


def end_process(process):
    """SIGTERM, a bounded wait, SIGKILL: to this process and no other."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def resident_peak_bytes(pid):
    """VmHWM: the most memory that the process has held."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise Failed(f"no VmHWM of process {pid}")


# --- ours ------------------------------------------------------------------------------------

class Ours:
    """Tieline's engine through the driver's pipes."""

    name = "tieline"

    def __init__(self, driver, runner, model, flags=(), digest=None):
        digest = digest or sha256(model)
        self.command = [driver, "--runner", runner, "--model", model, "--digest", digest, *flags]
        self.process = None

    def __enter__(self):
        self.log = Log()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.file, text=True, bufsize=1)
        self.pending, self.number, self.lock = {}, 0, threading.Lock()
        self.ready = Pending({}, lambda _: None)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.ready.until(lambda: self.ready.usage, "start of the driver", START_S)
        except BaseException as failed:
            self.__exit__()
            if isinstance(failed, Failed):
                raise Failed(f"{failed}: {self.log.last_words()}") from failed
            raise
        return self

    def __exit__(self, *_):
        runner = self.ready.usage.get("pid")
        end_process(self.process)
        self.reader.join(STOP_S)
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()
        if runner:
            wait_for_end(runner)

    @property
    def facts(self):
        return self.ready.usage

    @property
    def pid(self):
        """The process that holds the model."""
        return self.facts["pid"]

    @property
    def kv_tokens(self):
        return self.facts["loaded"]["kv_tokens"]

    def ask(self, **request):
        with self.lock:
            self.number += 1
            name = str(self.number)
            pending = self.pending[name] = Pending(request, lambda _: self._say({"op": "cancel", "id": name}))
        body = {"op": "generate", "id": name, **driver_request(request)}
        pending.sent = time.monotonic()
        self._say(body)
        return pending

    def tokens(self, text, parse_special=False):
        with self.lock:
            self.number += 1
            name = str(self.number)
            pending = self.pending[name] = Pending({}, lambda _: None)
        self._say({"op": "tokenize", "id": name, "text": text, "parse_special": parse_special})
        return pending.until(lambda: False, "tokens", 60).usage["tokens"]

    def measure(self, prefill, decode):
        """Seconds of a bare prefill and a bare decode of so many tokens, as llama-bench takes them."""
        with self.lock:
            self.number += 1
            name = str(self.number)
            pending = self.pending[name] = Pending({}, lambda _: None)
        self._say({"op": "measure", "id": name, "prefill": prefill, "decode": decode})
        return pending.until(lambda: False, "a measurement").timing

    def _say(self, body):
        try:
            with self.lock:
                self.process.stdin.write(json.dumps(body) + "\n")
                self.process.stdin.flush()
        except (OSError, ValueError) as error:
            raise Failed(f"the driver is gone: {self.log.last_words()}") from error
        if not self.reader.is_alive():
            raise Failed(f"the driver ended: {self.log.last_words()}")

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                with self.ready.changed:
                    self.ready.usage = event
                    self.ready.changed.notify_all()
            elif event["id"] in self.pending:
                driver_event(self.pending[event["id"]], event)
        for pending in [self.ready, *self.pending.values()]:
            pending.end("the driver ended")


def wait_for_end(pid):
    """The runner ends after the driver; where it does not, that is a failure worth knowing."""
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.02)
    raise Failed(f"the runner {pid} outlived its driver by {STOP_S} s")


def driver_request(request):
    """The driver's words for a request."""
    body = {key: request[key] for key in ("tokens", "messages", "max_tokens") if key in request}
    if "schema" in request:
        body["constraint"] = {"json_schema": json.dumps(request["schema"])}
    return {**body, "temperature": request.get("temperature", 0), "seed": request.get("seed", 1),
            "cache": request.get("cache", True),
            "ignore_eog": request.get("ignore_end", False), "echo": True,
            "speculation": request.get("speculation", "auto")}


def driver_event(pending, event):
    """What an event of the driver means for the answer."""
    kind = event["event"]
    if kind in ("text", "reasoning"):
        pending.piece(event.get("text", ""))
    elif kind == "started":
        pending.miss = event.get("miss")
    elif kind == "tokens":
        pending.usage = {"tokens": event["tokens"]}
        pending.end()
    elif kind == "measured":
        pending.timing = {"prefill": event["prefill"], "decode": event["decode"]}
        pending.end()
    elif kind == "finished":
        pending.usage, pending.timing = event["usage"], event["timing"]
        pending.end()
    elif kind == "cancelled":
        pending.end()
    elif kind == "error":
        pending.end(f"{event['kind']}: {event['message']}")


# --- theirs ----------------------------------------------------------------------------------

class Server:
    """llama-server over HTTP on a free port of this machine."""

    def __init__(self, program, model, threads, flags=(), name="default"):
        self.name = f"llama-server, {name}"
        self.flags = list(flags)
        # -lv 4 only writes the sizes of its buffers to the log; nothing of it is per token.
        self.command = [program, "-m", model, "-t", str(threads), "--host", "127.0.0.1", "--no-ui", "-lv", "4", *flags]
        self.environment = {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(program)}

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = Log()
        self.process = subprocess.Popen(
            [*self.command, "--port", str(self.port)], stdin=subprocess.DEVNULL,
            stdout=self.log.file, stderr=self.log.file, env=self.environment)
        try:
            if self._comes_up():
                return self
        except BaseException:
            self.__exit__()
            raise
        self.__exit__()
        raise Failed(f"llama-server did not come up: {self.log.last_words()}")

    def _comes_up(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self._get("/health").get("status") == "ok":
                    return True
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.05)
        return False

    def __exit__(self, *_):
        end_process(self.process)
        self.log.close()

    @property
    def pid(self):
        return self.process.pid

    @property
    def kv_tokens(self):
        return kv_cells(self.words()) or self._get("/props")["default_generation_settings"]["n_ctx"]

    def words(self):
        """All that it has written so far."""
        return self.log.words()

    def tokens(self, text, parse_special=False):
        return self.post("/tokenize", {"content": text, "parse_special": parse_special})["tokens"]

    def ask(self, **request):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.hung_up = False
        pending = Pending(request, lambda _: hang_up(connection))
        path, body = server_request(request)
        body = json.dumps(body)
        try:
            connection.connect()
            # The connection forgets its socket where the reply will end with it.
            connection.wire = connection.sock
            pending.sent = time.monotonic()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"llama-server is gone ({error!r}): {self.log.last_words()}") from error
        threading.Thread(target=self._read, args=(connection, pending), daemon=True).start()
        return pending

    def _read(self, connection, pending):
        try:
            reply = connection.getresponse()
            if reply.status != 200:
                return pending.end(f"status {reply.status}: {reply.read(500).decode(errors='replace')}")
            while line := reply.readline():
                if line.startswith(b"data: {"):
                    server_event(pending, json.loads(line[6:]))
            error = None if pending.usage else "the answer broke off"
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as failure:
            error = repr(failure)
        finally:
            connection.close()
        # Whoever hung up expects no more.
        pending.end(None if connection.hung_up else error)
        return None

    def post(self, path, body):
        return self._exchange("POST", path, json.dumps(body))

    def _get(self, path):
        return self._exchange("GET", path, None)

    def _exchange(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            words = reply.read()
            if reply.status != 200 and path != "/health":
                raise Failed(f"{path}: status {reply.status}: {words[:500].decode(errors='replace')}")
            return json.loads(words)
        finally:
            connection.close()


def hang_up(connection):
    connection.hung_up = True
    with contextlib.suppress(OSError):
        connection.wire.shutdown(socket.SHUT_RDWR)


def server_request(request):
    """llama-server's words for a request: the path and the body."""
    body = {"stream": True, "temperature": request.get("temperature", 0), "seed": request.get("seed", 1),
            "cache_prompt": request.get("cache", True), "ignore_eos": request.get("ignore_end", False)}
    if "id_slot" in request:
        body["id_slot"] = request["id_slot"]
    if "messages" in request:
        body |= {"messages": request["messages"], "max_tokens": request["max_tokens"],
                 "stream_options": {"include_usage": True}}
        return "/v1/chat/completions", body
    if "schema" in request:
        body["json_schema"] = request["schema"]
    return "/completion", {**body, "prompt": request["tokens"], "n_predict": request["max_tokens"]}


def server_event(pending, event):
    """What a streamed object of llama-server means for the answer."""
    if "error" in event:
        return pending.end(str(event["error"].get("message", event["error"])))
    if "choices" in event:
        delta = event["choices"][0].get("delta", {}) if event["choices"] else {}
        text = (delta.get("content") or "") + (delta.get("reasoning_content") or "")
        token = bool(text)
    else:
        text, token = event.get("content", ""), not event.get("stop")
    if token:
        pending.piece(text)
    if "timings" in event:
        timings = event["timings"]
        cached = timings.get("cache_n", 0)
        pending.usage = {
            "prompt": timings["prompt_n"] + cached, "cached": cached, "completion": timings["predicted_n"],
            "drafted": timings.get("draft_n", 0), "accepted": timings.get("draft_n_accepted", 0)}
        pending.timing = {"prefill": timings["prompt_ms"] / 1e3, "decode": timings["predicted_ms"] / 1e3}
    return None


def kv_cells(log):
    """The number of tokens that the KV cache holds, as llama.cpp's log says."""
    found = re.findall(r"llama_kv_cache: size = .*?\(\s*(\d+) cells", log)
    return sum(int(cells) for cells in found[:1])


def buffers(log):
    """Bytes of KV cache and of other buffers (compute, output), the weights not counted, from llama.cpp's log."""
    found = re.findall(r"(\w+) buffer size =\s*([\d.]+) MiB", log)
    sizes = {"kv": 0.0, "compute": 0.0}
    for kind, mebibytes in found:
        if kind == "KV":
            sizes["kv"] += float(mebibytes) * 2**20
        elif kind in ("compute", "output"):
            sizes["compute"] += float(mebibytes) * 2**20
    return {kind: int(size) for kind, size in sizes.items()}
