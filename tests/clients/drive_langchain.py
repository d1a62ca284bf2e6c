"""LangChain in front of one API: `drive_langchain.py openai|responses|anthropic|ollama`."""

import sys

import anthropic
import ollama
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from common import *

API = sys.argv[1]
MESSAGES = [HumanMessage("What is the weather in Paris?")]
OPENAI = {"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": PATIENCE_S}
# Each: the package and where its errors are.
PACKAGES = {
    "openai": ("langchain-openai", openai),
    "responses": ("langchain-openai", openai),
    "anthropic": ("langchain-anthropic", anthropic),
    "ollama": ("langchain-ollama", None),
}
package, errors = PACKAGES[API]
driver = Driver(package, package, "responses" if API == "responses" else "")


class City(BaseModel):
    """A city."""

    city: str
    population: int


@tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


def model(name, **more):
    if API == "openai":
        return ChatOpenAI(model=name, stream_usage=True, **OPENAI, **more)
    if API == "responses":
        return ChatOpenAI(model=name, use_responses_api=True, **OPENAI, **more)
    if API == "anthropic":
        settings = {"base_url": URL, "api_key": KEY, "max_retries": 0, "timeout": PATIENCE_S}
        return ChatAnthropic(model=name, max_tokens=2048, **settings, **more)
    return ChatOllama(model=name, base_url=URL, client_kwargs={"timeout": PATIENCE_S}, **more)


def failure(kind, status):
    """The error of this API's client, as keywords."""
    if errors is None:
        return ollama.ResponseError, {"status_code": status}
    return getattr(errors, kind), {"status_code": status}


@driver.feature
def chat():
    same(model("mock").invoke(MESSAGES).text, HELLO)


@driver.feature
def stream():
    same("".join(chunk.text for chunk in model("mock").stream(MESSAGES)), HELLO)


@driver.feature
def tools():
    answer = model("caller").bind_tools([get_weather]).invoke(MESSAGES)
    call = answer.tool_calls[0]
    same((call["name"], call["args"]), CALL)
    messages = [*MESSAGES, answer, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    same(model("mock").bind_tools([get_weather]).invoke(messages).text, HELLO)


@driver.feature
def tools_stream():
    whole = None
    for chunk in model("caller").bind_tools([get_weather]).stream(MESSAGES):
        whole = chunk if whole is None else whole + chunk
    same([(call["name"], call["args"]) for call in whole.tool_calls], [CALL])


@driver.feature
def json_schema():
    wish = model("json").with_structured_output(City, method="json_schema")
    same(wish.invoke(MESSAGES), City(**CITY))


if API == "openai":

    @driver.feature
    def embeddings():
        # Else it counts tokens with a vocabulary that it fetches from the network.
        wish = {"model": "embedder", "check_embedding_ctx_length": False}
        same(OpenAIEmbeddings(**wish, **OPENAI).embed_documents(["a", "b"]), [[0.5, 0.5, -0.5, 0.5]] * 2)

elif API == "ollama":

    @driver.feature
    def embeddings():
        model = OllamaEmbeddings(model="embedder", base_url=URL)
        same(model.embed_documents(["a", "b"]), [[0.5, 0.5, -0.5, 0.5]] * 2)

else:
    driver.lacks("this package has none for this API", "embeddings")

if API == "openai":
    driver.lacks("ChatOpenAI leaves `reasoning_content` out", "reasoning")
else:
    WISHES = {
        "responses": {"reasoning": {"effort": "medium", "summary": "auto"}},
        "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "ollama": {"reasoning": True},
    }

    @driver.feature
    def reasoning():
        answer = model("thinker", **WISHES[API]).invoke(MESSAGES)
        thoughts = [block["reasoning"] for block in answer.content_blocks if block["type"] == "reasoning"]
        same(("".join(thoughts), answer.text), (THOUGHT, ANSWER))


@driver.feature
def usage():
    whole = model("mock").invoke(MESSAGES).usage_metadata
    streamed = None
    for chunk in model("mock").stream(MESSAGES):
        streamed = chunk if streamed is None else streamed + chunk
    for figures in (whole, streamed.usage_metadata):
        same((figures["input_tokens"], figures["output_tokens"], figures["total_tokens"]), (9, 3, 12))


driver.lacks("LangChain lists none", "models")
if API == "anthropic":

    @driver.feature
    def count_tokens():
        same(model("mock").get_num_tokens_from_messages(MESSAGES) > 0, True)

else:
    driver.lacks("no such call in this API", "count_tokens")


@driver.feature
def unknown_model():
    kind, members = failure("NotFoundError", 404)
    return raises(kind, lambda: model(UNKNOWN).invoke(MESSAGES), says=UNKNOWN, **members)


@driver.feature
def too_long():
    kind, members = failure("BadRequestError", 400)
    return raises(kind, lambda: model("long").invoke(MESSAGES), **members)


@driver.feature
def busy():
    kind, members = failure("InternalServerError", 503)
    return raises(kind, lambda: list(model("full").stream(MESSAGES)), **members)


@driver.feature
def broken_stream():
    # Of a response that failed in mid-stream ChatOpenAI makes a ValueError.
    kind = ollama.ResponseError if errors is None else ValueError if API == "responses" else errors.APIError
    return raises(kind, lambda: list(model("breaks").stream(MESSAGES)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        answer = model("slow").stream(MESSAGES)
        same(len(take(answer, 3)), 3)
        answer.close()

    leaves(start)


driver.run()
