"""The openai package: the responses API."""

import json

import openai
from pydantic import BaseModel

from common import *

driver = Driver("openai-python", "openai", "responses")
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)
TOOLS = [{"type": "function", "name": "get_weather", "parameters": WEATHER_SCHEMA, "strict": True}]


class City(BaseModel):
    city: str
    population: int


def ask(model, **more):
    return client.responses.create(model=model, input=QUESTION, store=False, **more)


def called(response):
    calls = [item for item in response.output if item.type == "function_call"]
    return calls[0]


@driver.feature
def chat():
    response = client.responses.create(model="mock", input="Hi", instructions="Be short.", store=False)
    same((response.output_text, response.status), (HELLO, "completed"))


@driver.feature
def stream():
    events = list(ask("mock", stream=True))
    same("".join(event.delta for event in events if event.type == "response.output_text.delta"), HELLO)
    same((events[0].type, events[-1].type), ("response.created", "response.completed"))
    same([event.sequence_number for event in events], list(range(len(events))))
    same(events[-1].response.output_text, HELLO)


@driver.feature
def tools():
    response = ask("caller", tools=TOOLS)
    call = called(response)
    same((call.name, json.loads(call.arguments)), CALL)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    items = [*QUESTION, *response.output, result]
    same(client.responses.create(model="mock", input=items, tools=TOOLS, store=False).output_text, HELLO)


@driver.feature
def tools_stream():
    with client.responses.stream(model="caller", input=QUESTION, tools=TOOLS) as events:
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        call = called(events.get_final_response())
    same((call.name, json.loads(call.arguments)), CALL)
    same(len(pieces), 2)


@driver.feature
def json_schema():
    response = client.responses.parse(model="json", input=QUESTION, text_format=City)
    same(response.output_parsed, City(**CITY))


@driver.feature
def reasoning():
    response = ask("thinker", reasoning={"effort": "medium"})
    thoughts = [item for item in response.output if item.type == "reasoning"]
    text = "".join(part.text for item in thoughts for part in (item.content or item.summary))
    same((text, response.output_text), (THOUGHT, ANSWER))


@driver.feature
def usage():
    for figures in (ask("mock").usage, list(ask("mock", stream=True))[-1].response.usage):
        same((figures.input_tokens, figures.output_tokens, figures.total_tokens), (9, 3, 12))
        same(figures.input_tokens_details.cached_tokens, 4)


driver.lacks("other calls of this package; see its chat", "embeddings", "models")


@driver.feature
def count_tokens():
    counted = client.responses.input_tokens.count(model="mock", input=QUESTION, instructions="Be short.", tools=TOOLS)
    same((counted.object, counted.input_tokens > 0), ("response.input_tokens", True))


@driver.feature
def unknown_model():
    return raises(openai.NotFoundError, lambda: ask(UNKNOWN), says=UNKNOWN)


@driver.feature
def too_long():
    return raises(openai.BadRequestError, lambda: ask("long"), code="context_length_exceeded")


@driver.feature
def busy():
    return raises(openai.InternalServerError, lambda: ask("full"), status_code=503)


@driver.feature
def broken_stream():
    """Either is the API's own way: an error that is raised, or a response that failed."""
    events = []
    try:
        events.extend(ask("breaks", stream=True))
    except openai.APIError as error:
        same(BROKEN in str(error), True)
        return type(error).__name__
    last = events[-1]
    same(last.type, "response.failed")
    same(bool(last.response.error.message), True)
    return last.type


@driver.feature
def cancel():
    def start():
        with ask("slow", stream=True) as answer:
            same(len(take(answer, 6)), 6)

    leaves(start)


driver.run()
