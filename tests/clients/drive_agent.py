"""Agents without a terminal, a turn each: `drive_agent.py codex|opencode|aider`."""

import json
import pathlib
import subprocess
import sys
import tempfile

from common import *

AGENT = sys.argv[1]
FOLDER = pathlib.Path(os.environ["TIELINE_CLIENTS_FOLDER"])
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
    if not (FOLDER / "node_modules" / package).exists():
        driver = Driver("opencode", version="none")
        driver.lacks("pinned for Linux on x86-64 alone", "chat")
        return driver
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


{"codex": codex, "opencode": opencode, "aider": aider}[AGENT]().run()
