"""Agents without a terminal, a turn each: `drive_agent.py codex|opencode|aider|claude|continue`."""

import json
import pathlib
import secrets
import subprocess
import sys
import tempfile

from common import *

AGENT = sys.argv[1]
FOLDER = pathlib.Path(os.environ["TIELINE_CLIENTS_FOLDER"])
# What `tieline launch` tells the tools; a test there holds it to these files.
LAUNCH = pathlib.Path(__file__).parent / "launch"
LAUNCH_URL = "http://127.0.0.1:11435"
TURN_S = 90


def turn(command, work=None, **environment):
    """What the agent prints in an empty folder of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (work or {}).items():
            pathlib.Path(folder, name).write_text(text)
        said = subprocess.run(
            command,
            cwd=folder,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TURN_S,
        )
    return said.stdout


def version(package):
    return json.loads((FOLDER / "node_modules" / package / "package.json").read_text())["version"]


def launched(name, model):
    """What `tieline launch` tells a tool, for this server and this model."""
    return (LAUNCH / name).read_text().replace(LAUNCH_URL, URL).replace("mock", model)


def linux_alone(client, package):
    """A driver that says why nothing is tried where the pinned program does not run."""
    if (FOLDER / "node_modules" / package).exists():
        return None
    driver = Driver(client, version="none")
    driver.lacks("pinned for Linux on x86-64 alone", "chat")
    return driver


def codex():
    driver = Driver("codex", version=version("@openai/codex"))
    provider = f'model_providers.tieline={{name="Tieline",base_url="{URL}/v1",wire_api="responses"'
    provider += ",request_max_retries=0,stream_max_retries=0}"
    # Off: tools that are no functions.
    settings = ['model_provider="tieline"', provider, 'web_search="disabled"', "features.multi_agent=false"]
    words = [word for setting in settings for word in ("-c", setting)]

    def events(model):
        command = [str(FOLDER / "node_modules" / ".bin" / "codex"), "exec", "--skip-git-repo-check", "--json"]
        out = turn([*command, *words, "-m", model, "Say hello"])
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def items(model, kind):
        found = [event.get("item", {}) for event in events(model) if event["type"] == "item.completed"]
        return [item["text"] for item in found if item["type"] == kind]

    @driver.feature
    def chat():
        same(items("mock", "agent_message"), [HELLO])

    @driver.feature
    def reasoning():
        same(items("thinker", "reasoning"), [THOUGHT])

    @driver.feature
    def usage():
        usage = events("mock")[-1]["usage"]
        same((usage["input_tokens"], usage["cached_input_tokens"], usage["output_tokens"]), (9, 4, 3))

    @driver.feature
    def too_long():
        last = events("long")[-1]
        same((last["type"], "ran out of room" in last["error"]["message"]), ("turn.failed", True))

    return driver


def opencode():
    package = "opencode-linux-x64"  # the one that is pinned
    if absent := linux_alone("opencode", package):
        return absent
    driver = Driver("opencode", version=version(package))
    program = FOLDER / "node_modules" / package / "bin" / "opencode"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{URL}/v1"},
        "models": {"mock": {}},
    }
    config = {"opencode.json": json.dumps({"provider": {"tieline": provider}})}

    @driver.feature
    def chat():
        said = turn([str(program), "run", "--model", "tieline/mock", "Say hello"], work=config)
        same(said.strip().splitlines()[-1], HELLO)

    return driver


def aider():
    driver = Driver("aider", "aider-chat")
    quiet = ["--no-git", "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-pretty"]

    def answer(*words):
        command = [str(FOLDER / "bin" / "aider"), "--model", "openai/mock", "--message", "Say hello", "--yes-always"]
        settings = {"OPENAI_API_BASE": f"{URL}/v1", "OPENAI_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        return turn([*command, *quiet, *words], **settings).splitlines()

    @driver.feature
    def chat():
        same(HELLO in [line.strip() for line in answer("--no-stream")], True)

    @driver.feature
    def stream():
        same(HELLO in [line.strip() for line in answer("--stream")], True)

    @driver.feature
    def usage():
        same([line for line in answer("--no-stream") if line.startswith("Tokens:")], ["Tokens: 9 sent, 3 received."])

    return driver


def claude():
    package = "@anthropic-ai/claude-code-linux-x64"  # the one that is pinned
    if absent := linux_alone("Claude Code", package):
        return absent
    driver = Driver("Claude Code", version=version(package))
    program = str(FOLDER / "node_modules" / package / "claude")

    def events(model, *words, work=None):
        """Its lines of JSON; the last is the result."""
        start = json.loads(launched("claude.json", model))
        command = [program, *start["arguments"], "-p", "--output-format", "stream-json", "--verbose", *words]
        # Not `launch`'s: a test waits for no second try.
        settings = {**dict(start["environment"]), "CLAUDE_CODE_MAX_RETRIES": "0"}
        out = turn([*command, "--", "Say hello"], work=work, **settings)
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def parts(lines, kind):
        messages = [line["message"]["content"] for line in lines if line["type"] in ("assistant", "user")]
        return [part for content in messages for part in content if part["type"] == kind]

    def refused(model, status, reason):
        result = events(model)[-1]
        same((result["is_error"], result["api_error_status"], result["terminal_reason"]), (True, status, reason))

    @driver.feature
    def chat():
        same(events("mock")[-1]["result"], HELLO)

    @driver.feature
    def tools():
        word = secrets.token_hex(8)
        lines = events("agent", "--allowedTools", "Bash(cat note.txt)", work={"note.txt": word})
        same([part["name"] for part in parts(lines, "tool_use")], ["Bash"])
        same([part["content"] for part in parts(lines, "tool_result")], [word])
        same((lines[-1]["result"], lines[-1]["num_turns"]), (word, 2))

    @driver.feature
    def reasoning():
        lines = events("thinker")
        same([part["thinking"] for part in parts(lines, "thinking")], [THOUGHT])
        same(lines[-1]["result"], ANSWER)

    @driver.feature
    def usage():
        usage = events("mock")[-1]["usage"]
        found = [usage[name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")]
        same(found, [5, 4, 3])

    @driver.feature
    def unknown_model():
        refused(UNKNOWN, 404, "api_error")

    @driver.feature
    def too_long():
        refused("long", 400, "prompt_too_long")

    @driver.feature
    def busy():
        refused("full", 503, "api_error")

    return driver


def continue_():
    driver = Driver("Continue", version=version("@continuedev/cli"))

    def answer(model, *words, work=None):
        config = {"tieline.yaml": launched("continue.yaml", model)}
        command = [str(FOLDER / "node_modules" / ".bin" / "cn"), "-p", "--config", "tieline.yaml", *words]
        return turn([*command, "Say hello"], work={**config, **(work or {})}, CONTINUE_TELEMETRY_ENABLED="0").strip()

    @driver.feature
    def chat():
        same(answer("mock"), HELLO)

    @driver.feature
    def tools():
        word = secrets.token_hex(8)
        same(answer("agent", "--allow", "Bash", work={"note.txt": word}), word)

    @driver.feature
    def too_long():
        said = json.loads(answer("long"))
        same((said["status"], said["message"].startswith("400 ")), ("error", True))

    return driver


AGENTS = {"codex": codex, "opencode": opencode, "aider": aider, "claude": claude, "continue": continue_}
AGENTS[AGENT]().run()
