"""What every driver shares: where the server is, what its models say, and how a feature is told.

A driver names its client, gives a function for each feature that the client has and a reason for each that it has
not, and calls `run`. Each feature becomes one line of JSON on stdout; `scripts/clients.py` gathers them.
"""

import gc
import importlib.metadata
import json
import os
import sys
import time
import traceback
import urllib.request

URL = os.environ.get("TIELINE_URL", "http://127.0.0.1:8080").rstrip("/")
KEY = "none-needed"
PATIENCE_S = 20

# What the scripted models say; crates/tieline-server/examples/scripted.rs.
HELLO = "Hello there."
ANSWER = "Forty-two."
THOUGHT = "Let me think."
CALL = ("get_weather", {"city": "Paris"})
UNKNOWN = "nothing-here"
BROKEN = "ended while it answered"
CITY = {"city": "Paris", "population": 2_100_000}

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "a city's name"}},
    "required": ["city"],
    "additionalProperties": False,
}
CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["city", "population"],
    "additionalProperties": False,
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


class Driver:
    """One client and what it can do."""

    def __init__(self, client, package="", via="", version=""):
        self.client = client + (f" ({via})" if via else "")
        self.version = version or importlib.metadata.version(package)
        self.features = {}
        self.missing = {}

    def feature(self, function):
        """Takes a function named as its feature; it fails by raising."""
        self.features[function.__name__] = function
        return function

    def lacks(self, reason, *features):
        """The client has no such thing."""
        for feature in features:
            self.missing[feature] = reason

    def run(self):
        for feature, reason in self.missing.items():
            self.tell(feature, None, reason)
        for feature, function in self.features.items():
            try:
                note = function()
            except Exception as error:  # whatever a client raises is its feature's failure
                traceback.print_exc(file=sys.stderr)
                self.tell(feature, False, f"{type(error).__name__}: {error}"[:300])
            else:
                self.tell(feature, True, note or "")

    def tell(self, feature, ok, note):
        line = {"client": self.client, "version": self.version, "feature": feature, "ok": ok, "note": note}
        print(json.dumps(line), flush=True)


def same(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def raises(kinds, function, says="", **members):
    """The error that must come, with words in it and members that must be so."""
    try:
        function()
    except kinds as error:
        for name, wanted in members.items():
            same(getattr(error, name), wanted)
        if says not in str(error):
            raise AssertionError(f"{error} says nothing of {says!r}") from error
        return type(error).__name__
    raise AssertionError("nothing was raised")


def dropped():
    """How many answers the server saw dropped before their end."""
    with urllib.request.urlopen(f"{URL}/test/dropped", timeout=PATIENCE_S) as response:
        return int(response.read())


def leaves(start):
    """`start` begins a long answer, reads some of it and leaves: the server must notice."""
    before = dropped()
    start()
    gc.collect()  # some clients close a connection only when nothing knows it any more
    end = time.monotonic() + PATIENCE_S / 2
    while time.monotonic() < end:
        if dropped() > before:
            return
        time.sleep(0.05)
    raise AssertionError("the server goes on answering nobody")


def take(stream, count):
    """The first items of a stream."""
    items = []
    for item in stream:
        items.append(item)
        if len(items) == count:
            break
    return items
