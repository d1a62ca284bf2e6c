"""LlamaIndex in front of one API: `drive_llama_index.py openai|ollama`."""

import json
import sys

import ollama
import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from common import *

API = sys.argv[1]
PACKAGES = {"openai": "llama-index-llms-openai-like", "ollama": "llama-index-llms-ollama"}
driver = Driver(PACKAGES[API], PACKAGES[API])
MESSAGES = [ChatMessage(role="user", content="What is the weather in Paris?")]
OPENAI = {"api_base": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": PATIENCE_S}


class City(BaseModel):
    """A city."""

    city: str
    population: int


def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


TOOLS = [FunctionTool.from_defaults(get_weather)]


def model(name, **more):
    if API == "openai":
        kinds = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 4096}
        return OpenAILike(model=name, **kinds, **OPENAI, **more)
    return Ollama(model=name, base_url=URL, request_timeout=PATIENCE_S, context_window=4096, **more)


def failure(kind, status):
    if API == "ollama":
        return ollama.ResponseError, {"status_code": status}
    return getattr(openai, kind), {"status_code": status}


def text(answer):
    return answer.message.content


@driver.feature
def chat():
    same(text(model("mock").chat(MESSAGES)), HELLO)
    same(model("mock").complete("Once").text, HELLO)


@driver.feature
def stream():
    same("".join(part.delta or "" for part in model("mock").stream_chat(MESSAGES)), HELLO)


def calls(answer):
    found = model("caller").get_tool_calls_from_response(answer)
    return [(call.tool_name, call.tool_kwargs) for call in found]


@driver.feature
def tools():
    caller = model("caller")
    answer = caller.chat_with_tools(TOOLS, chat_history=MESSAGES)
    same(calls(answer), [CALL])
    call = caller.get_tool_calls_from_response(answer)[0]
    keys = {"tool_call_id": call.tool_id} if API == "openai" else {"tool_call_id": "call_1"}
    result = ChatMessage(role="tool", content="rain", additional_kwargs=keys)
    same(text(model("mock").chat_with_tools(TOOLS, chat_history=[*MESSAGES, answer.message, result])), HELLO)


@driver.feature
def tools_stream():
    same(calls(list(model("caller").stream_chat_with_tools(TOOLS, chat_history=MESSAGES))[-1]), [CALL])


@driver.feature
def json_schema():
    if API == "openai":
        form = {"type": "json_schema", "json_schema": {"name": "City", "schema": CITY_SCHEMA, "strict": True}}
        answer = text(model("json").chat(MESSAGES, response_format=form))
    else:
        answer = text(model("json").chat(MESSAGES, format=CITY_SCHEMA))
    same(json.loads(answer), CITY)


@driver.feature
def embeddings():
    if API == "openai":
        embedder = OpenAILikeEmbedding(model_name="embedder", **OPENAI)
    else:
        embedder = OllamaEmbedding(model_name="embedder", base_url=URL)
    same(embedder.get_text_embedding_batch(["a", "b"]), [[0.5, 0.5, -0.5, 0.5]] * 2)


if API == "openai":
    driver.lacks("OpenAILike leaves `reasoning_content` out", "reasoning")
else:

    @driver.feature
    def reasoning():
        answer = model("thinker", thinking=True).chat(MESSAGES).message
        thoughts = [block.content for block in answer.blocks if block.block_type == "thinking"]
        same(("".join(thoughts), answer.content), (THOUGHT, ANSWER))


@driver.feature
def usage():
    raw = model("mock").chat(MESSAGES).raw
    if API == "openai":
        same((raw.usage.prompt_tokens, raw.usage.completion_tokens), (9, 3))
    else:
        same((raw["prompt_eval_count"], raw["eval_count"]), (9, 3))


driver.lacks("LlamaIndex lists none", "models")
driver.lacks("no such call in this API", "count_tokens")


@driver.feature
def unknown_model():
    kind, members = failure("NotFoundError", 404)
    return raises(kind, lambda: model(UNKNOWN).chat(MESSAGES), says=UNKNOWN, **members)


@driver.feature
def too_long():
    kind, members = failure("BadRequestError", 400)
    return raises(kind, lambda: model("long").chat(MESSAGES), **members)


@driver.feature
def busy():
    kind, members = failure("InternalServerError", 503)
    return raises(kind, lambda: list(model("full").stream_chat(MESSAGES)), **members)


@driver.feature
def broken_stream():
    kind = ollama.ResponseError if API == "ollama" else openai.APIError
    return raises(kind, lambda: list(model("breaks").stream_chat(MESSAGES)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        answer = model("slow").stream_chat(MESSAGES)
        same(len(take(answer, 3)), 3)
        answer.close()

    leaves(start)


driver.run()
