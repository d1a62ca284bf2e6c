"""The ollama package."""

import pathlib
import tempfile
import urllib.request

import ollama
from pydantic import BaseModel

from common import *

driver = Driver("ollama-python", "ollama")
client = ollama.Client(host=URL, timeout=PATIENCE_S)


class City(BaseModel):
    city: str
    population: int


def get_weather(city: str) -> str:
    """Tells the weather.

    Args:
      city: a city's name
    """
    return f"rain in {city}"


def ask(model, **more):
    return client.chat(model=model, messages=QUESTION, **more)


@driver.feature
def chat():
    same(ask("mock", options={"temperature": 0, "num_ctx": 4096}, keep_alive="5m").message.content, HELLO)
    same(client.generate(model="mock", prompt="Once", system="Be short.").response, HELLO)


@driver.feature
def stream():
    parts = list(ask("mock", stream=True))
    same("".join(part.message.content for part in parts), HELLO)
    same((parts[-1].done, parts[-1].done_reason), (True, "stop"))
    same("".join(part.response for part in client.generate(model="mock", prompt="Once", stream=True)), HELLO)


@driver.feature
def tools():
    answer = ask("caller", tools=[get_weather])
    call = answer.message.tool_calls[0].function
    same((call.name, dict(call.arguments)), CALL)
    result = {"role": "tool", "tool_name": call.name, "content": get_weather(**call.arguments)}
    messages = [*QUESTION, answer.message, result]
    same(client.chat(model="mock", messages=messages, tools=[get_weather]).message.content, HELLO)


@driver.feature
def tools_stream():
    parts = list(ask("caller", tools=[get_weather], stream=True))
    calls = [call.function for part in parts for call in part.message.tool_calls or []]
    same([(call.name, dict(call.arguments)) for call in calls], [CALL])
    return "a call comes whole: so is this API"


@driver.feature
def json_schema():
    answer = ask("json", format=City.model_json_schema())
    same(City.model_validate_json(answer.message.content), City(**CITY))
    same(City.model_validate_json(ask("json", format="json").message.content), City(**CITY))


@driver.feature
def embeddings():
    answer = client.embed(model="embedder", input=["one", "two"])
    same([list(vector) for vector in answer.embeddings], [[0.5, 0.5, -0.5, 0.5]] * 2)
    same(list(client.embeddings(model="embedder", prompt="one").embedding), [0.5, 0.5, -0.5, 0.5])


@driver.feature
def reasoning():
    answer = ask("thinker", think=True).message
    same((answer.thinking, answer.content), (THOUGHT, ANSWER))
    parts = list(ask("thinker", think=True, stream=True))
    same("".join(part.message.thinking or "" for part in parts), THOUGHT)


@driver.feature
def usage():
    for last in (ask("mock"), list(ask("mock", stream=True))[-1]):
        same((last.prompt_eval_count, last.eval_count), (9, 3))
        same(last.total_duration > 0 and last.eval_duration > 0, True)


@driver.feature
def models():
    names = [model.model.removesuffix(":latest") for model in client.list().models]
    same("mock" in names, True)
    shown = client.show("mock")
    same("completion" in shown.capabilities, True)
    same(len(client.ps().models) > 0, True)


@driver.feature
def create():
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "made.gguf"
        with urllib.request.urlopen(f"{URL}/test/model") as answer:
            file.write_bytes(answer.read())
        digest = client.create_blob(file)
        # Bytes that are here may come again.
        same(client.create_blob(file), digest)
    steps = client.create(
        model="made", files={file.name: digest}, system="Be kind.", parameters={"seed": 7}, stream=True
    )
    same([step.status for step in steps][-1], "success")
    same(client.show("made").modelfile.count("Be kind."), 1)
    same(ask("made").message.content, HELLO)
    same(client.delete("made").status, "success")
    raises(ollama.ResponseError, lambda: client.delete("made"), status_code=404)


driver.lacks("no such call in this API", "count_tokens")


@driver.feature
def unknown_model():
    return raises(ollama.ResponseError, lambda: ask(UNKNOWN), says=UNKNOWN, status_code=404)


@driver.feature
def too_long():
    return raises(ollama.ResponseError, lambda: ask("long"), status_code=400)


@driver.feature
def busy():
    return raises(ollama.ResponseError, lambda: list(ask("full", stream=True)), status_code=503)


@driver.feature
def broken_stream():
    return raises(ollama.ResponseError, lambda: list(ask("breaks", stream=True)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        answer = ask("slow", stream=True)
        same(len(take(answer, 3)), 3)
        answer.close()

    leaves(start)


driver.run()
