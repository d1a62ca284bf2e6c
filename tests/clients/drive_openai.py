"""The openai package: chat completions."""

import json

import openai
from pydantic import BaseModel

from common import *

driver = Driver("openai-python", "openai", "chat")
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER_SCHEMA}}]


class City(BaseModel):
    city: str
    population: int


def ask(model, **more):
    return client.chat.completions.create(model=model, messages=QUESTION, **more)


def message(model, **more):
    return ask(model, **more).choices[0].message


@driver.feature
def chat():
    same(message("mock", temperature=0, max_tokens=20, stop=["END"], seed=1).content, HELLO)


@driver.feature
def stream():
    chunks = list(ask("mock", stream=True))
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks), HELLO)
    same(chunks[-1].choices[0].finish_reason, "stop")


@driver.feature
def tools():
    answer = ask("caller", tools=TOOLS, tool_choice="auto").choices[0]
    call = answer.message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), CALL)
    same(answer.finish_reason, "tool_calls")
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*QUESTION, answer.message, result]
    answer = client.chat.completions.create(model="mock", messages=messages, tools=TOOLS)
    same(answer.choices[0].message.content, HELLO)


@driver.feature
def tools_stream():
    with client.chat.completions.stream(model="caller", messages=QUESTION, tools=TOOLS) as events:
        pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
        call = events.get_final_completion().choices[0].message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), CALL)
    same(len([piece for piece in pieces if piece]), 2)


@driver.feature
def json_schema():
    answer = client.chat.completions.parse(model="json", messages=QUESTION, response_format=City)
    same(answer.choices[0].message.parsed, City(**CITY))


@driver.feature
def embeddings():
    answer = client.embeddings.create(model="embedder", input=["one", "two"])  # asks for base64 by itself
    same([item.embedding for item in answer.data], [[0.5, 0.5, -0.5, 0.5]] * 2)
    answer = client.embeddings.create(model="embedder", input="one", encoding_format="float")
    same(answer.data[0].embedding, [0.5, 0.5, -0.5, 0.5])


@driver.feature
def reasoning():
    answer = message("thinker")
    same((answer.reasoning_content, answer.content), (THOUGHT, ANSWER))
    deltas = [chunk.choices[0].delta for chunk in ask("thinker", stream=True)]
    same("".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas), THOUGHT)
    same("".join(delta.content or "" for delta in deltas), ANSWER)


@driver.feature
def usage():
    whole = ask("mock").usage
    streamed = list(ask("mock", stream=True, stream_options={"include_usage": True}))[-1].usage
    for figures in (whole, streamed):
        same((figures.prompt_tokens, figures.completion_tokens, figures.total_tokens), (9, 3, 12))
        same(figures.prompt_tokens_details.cached_tokens, 4)


@driver.feature
def models():
    same("mock" in [model.id for model in client.models.list()], True)
    same(client.models.retrieve("mock").id, "mock")
    raises(openai.NotFoundError, lambda: client.models.retrieve(UNKNOWN), says=UNKNOWN)


driver.lacks("no such call in this API", "count_tokens")


@driver.feature
def unknown_model():
    return raises(openai.NotFoundError, lambda: ask(UNKNOWN), says=UNKNOWN, code="model_not_found")


@driver.feature
def too_long():
    raises(openai.BadRequestError, lambda: ask("long", stream=True), code="context_length_exceeded")
    return raises(openai.BadRequestError, lambda: ask("long"), code="context_length_exceeded")


@driver.feature
def busy():
    raises(openai.InternalServerError, lambda: ask("full", stream=True), status_code=503)
    return raises(openai.InternalServerError, lambda: ask("full"), status_code=503)


@driver.feature
def broken_stream():
    raises(openai.APIStatusError, lambda: ask("breaks"), status_code=503)
    return raises(openai.APIError, lambda: list(ask("breaks", stream=True)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        with ask("slow", stream=True) as answer:
            same(len(take(answer, 3)), 3)

    leaves(start)


driver.run()
