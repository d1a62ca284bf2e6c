#!/usr/bin/env python3
"""Writes crates/tieline-runner/tests/templates/golden.txt and tools.txt: chat templates in the style of each
model family, with what jinja2 makes of them under the settings of Hugging Face transformers. Those with
tools are in tool_templates.py.

Needs jinja2 (pip install jinja2). Run it after editing a template below, and read the difference.
"""

import json
import pathlib

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

import tool_templates

# Written for this test after the idioms of each family; none is a copy of a published file.
TEMPLATES = {
    "chatml with a default system prompt": """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "llama 3 headers": """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""",
    "mistral instructions": """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "gemma turns": """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    "qwen thinking": """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "granite with a role table": """\
{%- set roles = {'system': 'S', 'user': 'U', 'assistant': 'A'} -%}
{%- for message in messages -%}
<|start_of_role|>{{ roles[message['role']] }}<|end_of_role|>{{ message['content'] }}<|end_of_text|>
{% endfor -%}
{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}""",
    "macro, call, filters and json": """\
{%- macro header(name, extra="x") -%}[{{ name|upper }}:{{ extra }}]{%- endmacro -%}
{%- for message in messages if message.role != 'system' -%}
{{ header(message.role, loop.index) }} {{ message.content | replace("Hi", "HI") | tojson }}
{{ {"role": message.role, "n": [1, 2.5, true, none], "nested": {"k": "<&>'é"}} | tojson }}
{% endfor -%}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ "a,b , c".split(",") | map("trim") | list }}{{ " x ".strip() }}{{ "Ab".lower() }}{{ "ab".title() }}""",
    "whitespace control and loop controls": """\
{% for message in messages %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
  * {{ message.role }}
    {% if loop.index == 3 %}
        {% break %}
    {% endif %}
{% endfor %}
end
""",
    "deepseek joined": """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<User>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{{'<Assistant>' + message['content'] + eos_token}}{%- endif %}{%- endfor %}{% if add_generation_prompt %}{{'<Assistant>'}}{% endif %}""",
}

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Hi <b>&</b> "you"'},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Naïve → 😀?"},
]


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise ValueError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def write(path, cases):
    env = environment()
    with path.open("w", encoding="utf-8") as out:
        for name, source, tools, messages in cases:
            text = env.from_string(source).render(
                messages=messages, tools=tools, documents=None,
                add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
            out.write(f"=====CASE {name}\n{source}\n-----OUTPUT\n{text}\n-----END\n")


def main():
    folder = pathlib.Path(__file__).parent.parent / "crates/tieline-runner/tests/templates"
    write(folder / "golden.txt", [(name, source, None, MESSAGES) for name, source in TEMPLATES.items()])
    cases = []
    for name, (source, tools, messages) in tool_templates.CASES.items():
        # Where the model goes on after its calls, and later.
        cases.append((f"{name}, then", source, tools, messages[:-2]))
        cases.append((f"{name}, later", source, tools, messages))
    write(folder / "tools.txt", cases)


if __name__ == "__main__":
    main()
