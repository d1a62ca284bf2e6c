"""LiteLLM as a client of one API: `drive_litellm.py openai|anthropic|ollama`."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of prices

import litellm

from common import *

litellm.suppress_debug_info = True
API = sys.argv[1]
driver = Driver("litellm", "litellm", API)
BASES = {
    "openai": ("openai", f"{URL}/v1"),
    "anthropic": ("anthropic", URL),
    "ollama": ("ollama_chat", URL),
}
prefix, base = BASES[API]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "tells the weather", "parameters": WEATHER_SCHEMA},
    }
]
SETTINGS = {"api_base": base, "api_key": KEY, "num_retries": 0, "max_retries": 0, "timeout": PATIENCE_S}


def ask(model, **more):
    more = {"messages": QUESTION, **more}
    return litellm.completion(model=f"{prefix}/{model}", **SETTINGS, **more)


@driver.feature
def chat():
    same(ask("mock", temperature=0.5, max_tokens=20).choices[0].message.content, HELLO)


@driver.feature
def stream():
    chunks = list(ask("mock", stream=True))
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks), HELLO)


@driver.feature
def tools():
    message = ask("caller", tools=TOOLS).choices[0].message
    call = message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), CALL)
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*QUESTION, message.model_dump(), result]
    same(ask("mock", messages=messages, tools=TOOLS).choices[0].message.content, HELLO)


@driver.feature
def tools_stream():
    whole = litellm.stream_chunk_builder(list(ask("caller", tools=TOOLS, stream=True)))
    call = whole.choices[0].message.tool_calls[0].function
    same((call.name, json.loads(call.arguments)), CALL)


@driver.feature
def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "City", "schema": CITY_SCHEMA, "strict": True}}
    same(json.loads(ask("json", response_format=form).choices[0].message.content), CITY)


if API == "anthropic":
    driver.lacks("Anthropic has none", "embeddings")
else:

    @driver.feature
    def embeddings():
        kind = "openai" if API == "openai" else "ollama"
        answer = litellm.embedding(model=f"{kind}/embedder", input=["a", "b"], api_base=base, api_key=KEY)
        same([item["embedding"] for item in answer.data], [[0.5, 0.5, -0.5, 0.5]] * 2)


if API == "anthropic":
    driver.lacks("litellm refuses `thinking` for models whose names it does not know", "reasoning")
else:

    @driver.feature
    def reasoning():
        wishes = {
            "openai": {},
            "ollama": {"reasoning_effort": "medium"},
        }
        message = ask("thinker", **wishes[API]).choices[0].message
        same((message.reasoning_content, message.content), (THOUGHT, ANSWER))


@driver.feature
def usage():
    figures = ask("mock").usage
    same((figures.prompt_tokens, figures.completion_tokens, figures.total_tokens), (9, 3, 12))


driver.lacks("no such call with this client", "models", "count_tokens")


@driver.feature
def unknown_model():
    return raises(litellm.NotFoundError, lambda: ask(UNKNOWN), says=UNKNOWN)


@driver.feature
def too_long():
    return raises(litellm.BadRequestError, lambda: ask("long"))


@driver.feature
def busy():
    kinds = (litellm.ServiceUnavailableError, litellm.InternalServerError, litellm.APIConnectionError)
    return raises(kinds, lambda: ask("full"), says="queue is full")


@driver.feature
def broken_stream():
    return raises(Exception, lambda: list(ask("breaks", stream=True)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        answer = ask("slow", stream=True)
        same(len(take(answer, 3)), 3)
        answer.close()

    leaves(start)


driver.run()
