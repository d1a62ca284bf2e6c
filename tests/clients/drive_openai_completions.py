"""The openai package: completions, as lm-evaluation-harness uses them."""

import openai

from common import *

driver = Driver("openai-python", "openai", "completions")
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)


def ask(model, **more):
    return client.completions.create(model=model, prompt="Once upon", **more)


@driver.feature
def chat():
    choice = ask("mock", max_tokens=16, logprobs=1).choices[0]
    same((choice.text, choice.finish_reason), (HELLO, "stop"))
    same(choice.logprobs.token_logprobs, [-0.5, -0.5, -0.5])
    same("".join(choice.logprobs.tokens), HELLO)
    answer = client.completions.create(model="mock", prompt=["Once", "Twice"])
    same([(choice.index, choice.text) for choice in answer.choices], [(0, HELLO), (1, HELLO)])


@driver.feature
def stream():
    chunks = list(ask("mock", stream=True))
    same("".join(choice.text for chunk in chunks for choice in chunk.choices), HELLO)


@driver.feature
def usage():
    figures = ask("mock").usage
    same((figures.prompt_tokens, figures.completion_tokens, figures.total_tokens), (9, 3, 12))


driver.lacks("completions have none", "tools", "tools_stream", "json_schema", "reasoning", "count_tokens")
driver.lacks("other calls of this package; see its chat", "embeddings", "models")


@driver.feature
def unknown_model():
    return raises(openai.NotFoundError, lambda: ask(UNKNOWN), says=UNKNOWN, code="model_not_found")


@driver.feature
def too_long():
    return raises(openai.BadRequestError, lambda: ask("long"), code="context_length_exceeded")


@driver.feature
def busy():
    return raises(openai.InternalServerError, lambda: ask("full"), status_code=503)


@driver.feature
def broken_stream():
    return raises(openai.APIError, lambda: list(ask("breaks", stream=True)), says=BROKEN)


@driver.feature
def cancel():
    def start():
        with ask("slow", stream=True) as answer:
            same(len(take(answer, 3)), 3)

    leaves(start)


driver.run()
