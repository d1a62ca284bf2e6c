"""The anthropic package."""

import anthropic
from pydantic import BaseModel

from common import *

driver = Driver("anthropic-python", "anthropic")
client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=PATIENCE_S)
TOOLS = [{"name": "get_weather", "description": "tells the weather", "input_schema": WEATHER_SCHEMA}]


class City(BaseModel):
    city: str
    population: int


def ask(model, **more):
    return client.messages.create(model=model, max_tokens=100, messages=QUESTION, **more)


def streamed(model, **more):
    return client.messages.stream(model=model, max_tokens=2048, messages=QUESTION, **more)


def text(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


@driver.feature
def chat():
    system = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    answer = ask("mock", system=system, stop_sequences=["END"], extra_body={"temperature": 0.5})
    same((text(answer), answer.stop_reason), (HELLO, "end_turn"))


@driver.feature
def stream():
    with streamed("mock") as answer:
        same("".join(answer.text_stream), HELLO)
        same(answer.get_final_message().stop_reason, "end_turn")


@driver.feature
def tools():
    answer = ask("caller", tools=TOOLS, tool_choice={"type": "auto"})
    use = next(block for block in answer.content if block.type == "tool_use")
    same((use.name, use.input), CALL)
    same(answer.stop_reason, "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    messages = [*QUESTION, *turns]
    answer = client.messages.create(model="mock", max_tokens=100, messages=messages, tools=TOOLS)
    same(text(answer), HELLO)


@driver.feature
def tools_stream():
    with streamed("caller", tools=TOOLS) as answer:
        pieces = [event.partial_json for event in answer if event.type == "input_json"]
        use = answer.get_final_message().content[0]
    same((use.name, use.input), CALL)
    same(len([piece for piece in pieces if piece]), 2)


@driver.feature
def json_schema():
    answer = client.messages.parse(model="json", max_tokens=100, messages=QUESTION, output_format=City)
    same(answer.parsed_output, City(**CITY))


driver.lacks("Anthropic has none", "embeddings")


@driver.feature
def reasoning():
    wish = {"type": "enabled", "budget_tokens": 1024}
    answer = client.messages.create(model="thinker", max_tokens=2048, messages=QUESTION, thinking=wish)
    same([block.type for block in answer.content], ["thinking", "text"])
    same((answer.content[0].thinking, text(answer)), (THOUGHT, ANSWER))
    with streamed("thinker", thinking=wish) as events:
        same("".join(event.thinking for event in events if event.type == "thinking"), THOUGHT)
        final = events.get_final_message()
    same((final.content[0].thinking, text(final)), (THOUGHT, ANSWER))
    turns = [{"role": "assistant", "content": final.content}, {"role": "user", "content": "Sure?"}]
    answer = client.messages.create(model="mock", max_tokens=100, messages=[*QUESTION, *turns])
    same(text(answer), HELLO)


@driver.feature
def usage():
    with streamed("mock") as answer:
        final = answer.get_final_message().usage
    for figures in (ask("mock").usage, final):
        prompt = figures.input_tokens + figures.cache_read_input_tokens + (figures.cache_creation_input_tokens or 0)
        same((prompt, figures.cache_read_input_tokens, figures.output_tokens), (9, 4, 3))


@driver.feature
def models():
    same("mock" in [model.id for model in client.models.list()], True)
    same(client.models.retrieve("mock").id, "mock")


@driver.feature
def count_tokens():
    counted = client.messages.count_tokens(model="mock", messages=QUESTION, system="Be short.", tools=TOOLS)
    same(counted.input_tokens > 0, True)


@driver.feature
def unknown_model():
    return raises(anthropic.NotFoundError, lambda: ask(UNKNOWN), says=UNKNOWN)


@driver.feature
def too_long():
    return raises(anthropic.BadRequestError, lambda: ask("long"))


@driver.feature
def busy():
    def whole():
        ask("full")

    return raises(anthropic.InternalServerError, whole)


@driver.feature
def broken_stream():
    def read():
        with streamed("breaks") as answer:
            list(answer)

    return raises(anthropic.APIStatusError, read, says=BROKEN)


@driver.feature
def cancel():
    def start():
        with streamed("slow") as answer:
            same(len(take(answer.text_stream, 3)), 3)

    leaves(start)


driver.run()
