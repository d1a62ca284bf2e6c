"""Prompts: real English of this repository cut to any number of tokens, an agent's conversation, code. No I/O but reading."""

import json
import random
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "PROMISES.md", "docs/*.md",
         "crates/tieline-types/src/*.rs", "crates/tieline-engine/src/*.rs")


def sentences(root=ROOT):
    """The sentences of the repository's pages and doc comments, without tables and code."""
    found = []
    for pattern in PAGES:
        for page in sorted(root.glob(pattern)):
            words = " ".join(" ".join(prose(page)).split())
            found += [part.strip(" -*") for part in re.split(r"(?<=[.:;!?]) ", words) if len(part) > 30]
    return list(dict.fromkeys(found))


def prose(page):
    """The lines of a page, or the doc comments of a Rust file."""
    if page.suffix == ".rs":
        comments = (re.match(r"\s*//[/!] (.*)", line) for line in page.read_text().splitlines())
        return [comment[1] for comment in comments if comment and not comment[1].startswith("#")]
    text = re.sub(r"```.*?```", " ", page.read_text(), flags=re.S)
    return [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", "<", "!["))]


class Corpus:
    """Token arrays of any length. The same seed gives the same array; two seeds differ from the start."""

    def __init__(self, tokenize, texts=None):
        self.tokenize = tokenize
        self.parts = [tokenize(" " + text) for text in texts or sentences()]
        if not any(self.parts):
            raise ValueError("no text to make prompts of")

    def prompt(self, length, seed):
        rng = random.Random(f"{seed}")
        # A number of its own comes first, so that no cache takes one prompt for another's continuation.
        tokens = list(self.tokenize(f"Notes {rng.randrange(10**9)}."))
        while len(tokens) < length:
            for part in rng.sample(self.parts, len(self.parts)):
                tokens += part
        return tokens[:length]


# --- an agent's conversation -----------------------------------------------------------------

TOOLS = {
    "Bash": ("Runs a command in a persistent shell with an optional timeout and returns what it wrote", ("command", "timeout", "description", "run_in_background")),
    "Read": ("Reads a file from the local file system; the path must be absolute; long lines are cut", ("file_path", "offset", "limit")),
    "Edit": ("Replaces exact text in a file; fails where the old text is not unique", ("file_path", "old_string", "new_string", "replace_all")),
    "Write": ("Writes a file, over what was there; read an existing file first", ("file_path", "content")),
    "Glob": ("Finds files by a pattern such as **/*.rs, newest first", ("pattern", "path")),
    "Grep": ("Searches file contents with a regular expression; supports context lines and file types", ("pattern", "path", "glob", "output_mode", "-A", "-B", "-n", "type", "head_limit")),
    "WebFetch": ("Fetches a page, turns it into text and answers a question about it", ("url", "prompt")),
    "WebSearch": ("Searches the web and returns titles and addresses", ("query", "allowed_domains", "blocked_domains")),
    "TodoWrite": ("Keeps the list of open tasks up to date; exactly one is in progress", ("todos",)),
    "Task": ("Starts a program with a task of its own; it reports once, at its end", ("description", "prompt", "kind")),
    "NotebookEdit": ("Replaces, inserts or deletes one cell of a notebook", ("notebook_path", "cell_id", "new_source", "cell_type", "edit_mode")),
    "KillShell": ("Ends a shell that runs in the background, by its id", ("shell_id",)),
}


def tool_definitions(most=len(TOOLS)):
    """The tools as the JSON that such agents send."""
    return [
        {"name": name, "description": f"{words}. Use it when the task asks for it and no other tool fits better.",
         "input_schema": {
             "type": "object", "additionalProperties": False, "required": list(parameters[:1]),
             "properties": {parameter: {"type": "string", "description": f"The {parameter.strip('-').replace('_', ' ')} for {name}"}
                            for parameter in parameters}}}
        for name, (words, parameters) in list(TOOLS.items())[:most]]


def system_prompt(tokenize, length, seed, turn, texts=None):
    """About `length` tokens. The first line changes with each turn, as such agents' does; nothing else does."""
    rng = random.Random(f"system {seed}")
    body = ["You are an agent that works on a code base with the tools below. Be brief; check what you claim.",
            "# Tools", json.dumps(tool_definitions(max(1, length // 300)), indent=1), "# Rules of this project"]
    size = len(tokenize("\n".join(body)))
    texts = texts or sentences()
    while size < length:
        rule = f"- {rng.choice(texts)}"
        body.append(rule)
        size += len(tokenize(rule)) + 1
    return "\n".join([billing_line(seed, turn), *body])


def billing_line(seed, turn):
    digits = f"{random.Random(f'cch {seed} {turn}').randrange(16**5):05x}"
    return f"x-anthropic-billing-header: cc_version=2.1.37.abc; cc_entrypoint=cli; cch={digits};"


def tool_result(tokenize, length, seed, turn, texts=None):
    """What a tool gave back: numbered lines of a file, about `length` tokens."""
    rng = random.Random(f"result {seed} {turn}")
    texts, lines, size = texts or sentences(), [], 0
    while size < length:
        line = f"{len(lines) + 1:6}\t{rng.choice(texts)}"
        lines.append(line)
        size += len(tokenize(line))
    return f"[tool_result id=toolu_{rng.randrange(16**8):08x}]\n" + "\n".join(lines)


def question(seed):
    return f"Look through the project and fix issue {random.Random(f'issue {seed}').randrange(10**6)}."


# --- code and a schema -----------------------------------------------------------------------

NOUNS = ("ledger", "parcel", "ticket", "sensor", "invoice", "journal", "recipe", "voyage")
FIELDS = ("total", "weight", "owner", "created", "priority", "region", "status", "comment")


def code(seed):
    """A file of about 60 lines, with names of its own for each seed."""
    rng = random.Random(f"code {seed}")
    noun, fields = rng.choice(NOUNS), rng.sample(FIELDS, 6)
    name = noun.capitalize()
    lines = ["import json", "from pathlib import Path", "", "", f"class {name}:", f'    """One {noun} of the archive."""', ""]
    lines += [f"    def __init__(self, {', '.join(fields)}):"] + [f"        self.{field} = {field}" for field in fields] + [""]
    for field in fields:
        lines += [f"    def set_{field}(self, {field}):", f"        if {field} is None:",
                  f'            raise ValueError("{field} is missing")', f"        self.{field} = {field}", "        return self", ""]
    lines += ["    def to_dict(self):", "        return {"] + [f'            "{field}": self.{field},' for field in fields] + ["        }", ""]
    lines += ["", f"def load_{noun}(path):", "    data = json.loads(Path(path).read_text())", f"    return {name}(**data)", ""]
    return "\n".join(lines), name


def rewrite(seed):
    """A prompt whose answer repeats most of it."""
    text, name = code(seed)
    return f"```python\n{text}```\n\nThe same file, with the class {name} renamed to {name}Record:\n\n```python\nimport json\n"


def story(seed):
    rng = random.Random(f"story {seed}")
    return f"Once upon a time, a {rng.choice(NOUNS)} of {rng.randrange(1000)} pages lay in a small town. "


SCHEMA = {
    "type": "array", "minItems": 40, "maxItems": 40,
    "items": {
        "type": "object", "additionalProperties": False, "required": ["name", "age", "city", "member"],
        "properties": {"name": {"type": "string", "maxLength": 24}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                       "city": {"type": "string", "maxLength": 24}, "member": {"type": "boolean"}}}}


def people(seed):
    town = random.Random(f"people {seed}").choice(("Oslo", "Lima", "Cairo", "Turin", "Osaka", "Perth"))
    return f"A JSON array of people who live near {town}, each with name, age, city and member:\n"
