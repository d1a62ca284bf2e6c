"""A hook of schemathesis: counts what the service answers, by route and by whether the request fits the document.

Writes them to the file that CHECK_OPENAPI_COUNT names, when the process ends.
"""

import atexit
import collections
import json
import os

import schemathesis

ANSWERS = collections.defaultdict(collections.Counter)


@schemathesis.hook
def after_call(context, case, response):
    fits = case.meta is not None and case.meta.generation.mode.is_positive
    route = f"{case.operation.method.upper()} {case.operation.path}"
    ANSWERS[route][f"{'fits' if fits else 'other'} {response.status_code // 100}xx"] += 1


@atexit.register
def write():
    with open(os.environ["CHECK_OPENAPI_COUNT"], "w", encoding="utf-8") as file:
        json.dump(ANSWERS, file)
