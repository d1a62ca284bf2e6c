"""Chat templates with tools for `render_templates.py`, in the style of each model family, and what each
takes of one conversation. Written after the idioms of each family; none is a copy of a published file."""

import copy
import json

MISTRAL = """\
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("ids of calls must have nine letters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
        {%- if not message.tool_call_id is defined or message.tool_call_id|length != 9 %}
            {{- raise_exception("ids of calls must have nine letters") }}
        {%- endif %}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("only user, assistant and tool") }}
    {%- endif %}
{%- endfor %}"""

# Calls are text, and there are none where the turn says something.
DEEPSEEK_NONE = """\
{%- set ns = namespace(is_first=false, is_tool=false, system='') -%}
{%- for message in messages if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set ns.is_tool = false -%}{{ '<｜User｜>' + message['content'] }}{%- endif -%}
{%- if message['role'] == 'assistant' and message['content'] is none -%}
{%- set ns.is_tool = false -%}{%- set ns.is_first = false -%}
{%- for tool in message['tool_calls'] -%}
{%- if not ns.is_first -%}
{{ '<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
{%- set ns.is_first = true -%}
{%- else -%}
{{ '\\n<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
{%- endif -%}
{%- endfor -%}
{{ '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
{%- endif -%}
{%- if message['role'] == 'assistant' and message['content'] is not none -%}
{%- if ns.is_tool -%}
{{ '<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}{%- set ns.is_tool = false -%}
{%- else -%}
{{ '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}
{%- endif -%}
{%- endif -%}
{%- if message['role'] == 'tool' -%}
{{ ('' if ns.is_tool else '<｜tool▁outputs▁begin｜>') + '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}{%- set ns.is_tool = true -%}
{%- endif -%}
{%- endfor -%}
{% if ns.is_tool %}{{ '<｜tool▁outputs▁end｜>' }}{% endif %}
{%- if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜>' }}{% endif %}"""

DEEPSEEK_TEXT = (
    DEEPSEEK_NONE
    .replace("'assistant' and message['content'] is none", "'assistant' and 'tool_calls' in message")
    .replace("'assistant' and message['content'] is not none", "'assistant' and 'tool_calls' not in message")
    .replace("'<｜Assistant｜><｜tool▁calls▁begin｜>", "'<｜Assistant｜>' + message['content'] + '<｜tool▁calls▁begin｜>")
)

LLAMA = """\
{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools is not none %}
    {%- set first_user_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Given the following functions, answer with JSON for a call.\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first_user_message + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim -}}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model
'}}{%- endif -%}
"""

GEMMA_NO_SYSTEM = GEMMA.replace(
    "    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}",
    "    {{ raise_exception('System role not supported') }}{%- set first_user_prefix = '' -%}",
)

CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

HERMES = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and message.content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}}},
]

# As callers send it; the test in Rust has the same.
BERN = ("call_1_0", "Bern")
ROME = ("toolu_01A", "Rome")


def call(which, ids, text):
    id, city = which
    arguments = {"city": city}
    function = {"name": "weather", "arguments": json.dumps(arguments) if text else arguments}
    return {"id": ids.get(id, id), "type": "function", "function": function}


def result(which, content, ids):
    return {"role": "tool", "content": content, "tool_call_id": ids.get(which[0], which[0]), "name": "weather"}


def conversation(ids={}, text=False, content=""):
    """With two calls in one turn."""
    return [
        {"role": "user", "content": "Rain in Bern and Rome?"},
        {"role": "assistant", "content": content, "tool_calls": [call(BERN, ids, text), call(ROME, ids, text)]},
        result(BERN, "wet", ids),
        result(ROME, "dry", ids),
        {"role": "assistant", "content": "In Bern."},
        {"role": "user", "content": "Thanks."},
    ]


def single():
    """Each call with its result."""
    question, calls, wet, dry, *rest = conversation()
    one, other = copy.deepcopy(calls), copy.deepcopy(calls)
    one["tool_calls"], other["tool_calls"] = one["tool_calls"][:1], other["tool_calls"][1:]
    return [question, one, wet, other, dry, *rest]


INSTRUCTION = (
    "You can call these tools, one a line:\n"
    + "".join(json.dumps(tool["function"]) + "\n" for tool in TOOLS)
    + "\nTo call one, answer with nothing but a JSON object, one line for each call:\n"
    '{"name": "<the tool\'s name>", "arguments": {<its arguments>}}\n'
    "What it gives comes in the next message. Where no tool is needed, answer in plain text."
)


def words(system="system", tool_role=False):
    """Calls and, for a template without turns of tools, results in words."""
    question, _, wet, dry, *rest = conversation()
    calls = {
        "role": "assistant",
        "content": '{"name": "weather", "arguments": {"city": "Bern"}}\n{"name": "weather", "arguments": {"city": "Rome"}}',
    }
    results = [wet, dry]
    if not tool_role:
        told = "The tool weather gave:\n"
        results = [{"role": "user", "content": f"{told}wet\n\n{told}dry"}]
    if system == "user":
        question = {"role": "user", "content": INSTRUCTION + "\n\n" + question["content"]}
        return [question, calls, *results, *rest]
    return [{"role": "system", "content": INSTRUCTION}, question, calls, *results, *rest]


def instructed(messages):
    return [{"role": "system", "content": INSTRUCTION}, *messages]


# What `talk::call_id` makes of the callers' ids.
NINE = {"call_1_0": "NRGHWtVPD", "toolu_01A": "M8XUDJP9r"}

# Name: template, the tools it reads, and the conversation as it takes it.
CASES = {
    "mistral: nine letters": (MISTRAL, TOOLS, conversation(NINE)),
    "deepseek: arguments are text": (DEEPSEEK_TEXT, None, instructed(conversation(text=True))),
    "deepseek: calls where nothing is said": (DEEPSEEK_NONE, None, instructed(conversation(text=True, content=None))),
    "llama 3: one call a turn": (LLAMA, TOOLS, single()),
    "gemma: no tools": (GEMMA, None, words()),
    "gemma: no tools and no system": (GEMMA_NO_SYSTEM, None, words(system="user")),
    "chatml: no tools": (CHATML, None, words(tool_role=True)),
    "hermes: as it comes": (HERMES, TOOLS, conversation()),
}
