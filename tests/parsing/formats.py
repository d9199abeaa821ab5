"""Every tool-call format, and answers in the shapes in which their models really write them."""

from __future__ import annotations

from typing import Any

from mlx_manager.parsing import MarkedStyle, ReasoningFormat, ToolFormat, tool_formats
from tests.parsing.reading import Part, call, reasoning, text

FORMATS: dict[str, ToolFormat] = {
    each.name: each for each in vars(tool_formats).values() if isinstance(each, ToolFormat)
}
THINK = ReasoningFormat()
PARIS, ROME = call("get_weather", city="Paris"), call("get_weather", city="Rome", days=2)
CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "one": [("get_weather", {"city": "Paris"})],
    "several": [("get_weather", {"city": "Paris", "days": 3}), ("get_weather", {"city": "Rome"}), ("ping", {})],
    "no arguments": [("ping", {})],
    "all types": [
        (
            "web-search",
            {"query": "a b", "tags": ["x", "y z"], "filters": {"a": {"b": [1, 2]}}, "exact": True, "score": -1.5},
        )
    ],
    "empty values": [("web-search", {"query": "", "tags": [], "filters": {}, "exact": False})],
    "signs": [
        ("web-search", {"query": 'say "hi" {now} [1], it\'s <b>50 %</b> & back\\slash', "tags": ["}", "]", '"']})
    ],
    "lines": [("web-search", {"query": "def f(x):\n    return x\n\n# done"})],
    "other scripts": [("get_weather", {"city": "São Paulo, 東京 🌧"})],
}
"""Calls that every format can write."""
RECORDED: dict[str, list[tuple[str, list[Part]]]] = {
    "hermes": [
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', [PARIS]),
        ('<tool_call>{"name":"get_weather","arguments":{"city":"Paris"}}</tool_call>', [PARIS]),
        (
            'I will look.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>',
            [text("I will look."), PARIS, ROME],
        ),
        # arguments first, arguments as text, an id, a brace too many, no end marker
        ('<tool_call>\n{"arguments": {"city": "Paris"}, "name": "get_weather"}\n</tool_call>', [PARIS]),
        ('<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}\n</tool_call>', [PARIS]),
        ('<tool_call>\n{"id": "1", "name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', [PARIS]),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}}\n</tool_call>', [PARIS]),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}', [PARIS]),
        ('<tool_call>\n{"name": "ping", "arguments": null}\n</tool_call>', [call("ping")]),
        ('<tool_call>\n{"name": "ping"}\n</tool_call>', [call("ping")]),
        ("I write <tool_call> to call.", [text("I write <tool_call> to call.")]),
        ("<tool_call>\n{'name': 'ping'}\n</tool_call>", [text("<tool_call>\n{'name': 'ping'}\n</tool_call>")]),
    ],
    "granite": [
        ('<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', [PARIS]),
        (
            '<tool_call>[{"name": "get_weather", "arguments": {"city": "Paris"}}, '
            '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
            [PARIS, ROME],
        ),
    ],
    "phi4-mini": [
        ('functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]', [PARIS]),
        ('<|tool_call|>[{"name": "get_weather", "parameters": {"city": "Paris"}}]<|/tool_call|>', [PARIS]),
    ],
    "command-r": [
        (
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}},'
            "\n"
            '    {"tool_call_id": "1", "tool_name": "get_weather", "parameters": {"city": "Rome", "days": 2}}\n'
            "]<|END_ACTION|>",
            [PARIS, ROME],
        )
    ],
    "nemotron": [('<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>', [PARIS])],
    "minimax-m1": [
        (
            '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n'
            '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_calls>',
            [PARIS, ROME],
        ),
        ('<tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</tool_calls>', [PARIS]),
    ],
    "llama3": [
        ('{"name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS]),
        ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS]),
        (
            '{"name": "get_weather", "parameters": {"city": "Paris"}}; '
            '{"name": "get_weather", "parameters": {"city": "Rome", "days": 2}}',
            [PARIS, ROME],
        ),
        ('{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS]),
        # an answer in JSON is an answer
        ('{"name": "Ada", "age": 36}', [text('{"name": "Ada", "age": 36}')]),
        ('It is {"name": "ping"}', [text('It is {"name": "ping"}')]),
    ],
    "llama4": [
        ('[get_weather(city="Paris"), get_weather(city="Rome", days=2)]', [PARIS, ROME]),
        ("<|python_start|>[get_weather(city='Paris')]<|python_end|>", [PARIS]),
        ('{"name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS]),
        ("[1, 2, 3]", [text("[1, 2, 3]")]),
        ("[unknown(x=1)]", [text("[unknown(x=1)]")]),
    ],
    "lfm2": [
        (
            "<|tool_call_start|>[get_weather(city='Paris'), get_weather(city=\"Rome\", days=2)]<|tool_call_end|>"
            "Looking that up.",
            [PARIS, ROME, text("Looking that up.")],
        ),
        (
            "<|tool_call_start|>[web-search(query='it\\'s', tags=('a', 'b'), filters={'x': None}, exact=True)]"
            "<|tool_call_end|>",
            [call("web-search", query="it's", tags=["a", "b"], filters={"x": None}, exact=True)],
        ),
        ('<|tool_call_start|>{"name": "get_weather", "arguments": {"city": "Paris"}}<|tool_call_end|>', [PARIS]),
    ],
    "mistral-list": [
        (
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdef123"}, '
            '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
            [PARIS, ROME],
        )
    ],
    "mistral-args": [
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', [PARIS]),
        ('[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}', [PARIS]),
        (
            'Two.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_weather{"city": "Rome", "days": 2}',
            [text("Two."), PARIS, ROME],
        ),
    ],
    "deepseek-r1": [
        (
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n'
            "```"
            "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            '{"city": "Rome", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            [PARIS, ROME],
        )
    ],
    "deepseek-v3.1": [
        (
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
            '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome", "days": 2}<｜tool▁call▁end｜>'
            "<｜tool▁calls▁end｜>",
            [PARIS, ROME],
        )
    ],
    "kimi-k2": [
        (
            "Both.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.get_weather:1<|tool_call_argument_begin|>'
            '{"city": "Rome", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
            [text("Both."), PARIS, ROME],
        )
    ],
    "qwen3-coder": [
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n"
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n"
            "</parameter>\n</function>\n</tool_call>",
            [PARIS, ROME],
        ),
        # the first marker is forgotten now and then
        ("<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", [PARIS]),
        ("<tool_call>\n<function=ping>\n</function>\n</tool_call>", [call("ping")]),
    ],
    "glm": [
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n"
            "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Rome</arg_value><arg_key>days</arg_key>"
            "<arg_value>2</arg_value></tool_call>",
            [PARIS, ROME],
        ),
        ("<tool_call>ping\n</tool_call>", [call("ping")]),
    ],
    "minimax-m2": [
        (
            '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n'
            '<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n<parameter name="days">2</parameter>'
            "\n"
            "</invoke>\n</minimax:tool_call>",
            [PARIS, ROME],
        )
    ],
    "deepseek-v3.2": [
        (
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
            '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            '<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>'
            "\n"
            '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            "</｜DSML｜function_calls>",
            [PARIS, ROME],
        )
    ],
    "deepseek-v4": [
        (
            'Well.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n'
            '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            "</｜DSML｜tool_calls>",
            [text("Well."), PARIS],
        )
    ],
    "longcat": [
        (
            "<longcat_tool_call>get_weather\n<longcat_arg_key>city</longcat_arg_key>\n"
            "<longcat_arg_value>Paris</longcat_arg_value>\n</longcat_tool_call>",
            [PARIS],
        )
    ],
    "seed-oss": [
        (
            "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
            [PARIS],
        )
    ],
    "gemma4": [
        (
            '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
            '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:2}<tool_call|>',
            [PARIS, ROME],
        ),
        (
            '<|tool_call>call:web-search{exact:true,filters:{a:[1,<|"|>b<|"|>]},query:<|"|>say "hi"<|"|>}<tool_call|>',
            [call("web-search", exact=True, filters={"a": [1, "b"]}, query='say "hi"')],
        ),
    ],
    "function-gemma": [
        ("<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>", [PARIS]),
    ],
}
"""By format, answers and what they mean."""
THOUGHT: list[tuple[MarkedStyle, str, bool, list[Part]]] = [
    (MarkedStyle(THINK), "<think>\nHm.\n</think>\n\nYes.", False, [reasoning("Hm."), text("Yes.")]),
    # begun by the prompt; begun twice; never ended; nothing thought
    (MarkedStyle(THINK), "Hm.\n</think>\n\nYes.", True, [reasoning("Hm."), text("Yes.")]),
    (MarkedStyle(THINK), "<think>\nHm.\n</think>\n\nYes.", True, [reasoning("Hm."), text("Yes.")]),
    (MarkedStyle(THINK), "<think>\nHm", False, [reasoning("Hm")]),
    (MarkedStyle(THINK), "<think>\n\n</think>\n\nYes.", False, [text("Yes.")]),
    # in the middle of a text it is about markers
    (MarkedStyle(THINK), "Write <think> first.", False, [text("Write <think> first.")]),
    (
        MarkedStyle(THINK, FORMATS["hermes"]),
        'Hm.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        True,
        [reasoning("Hm."), PARIS],
    ),
    (
        MarkedStyle(ReasoningFormat("[THINK]", "[/THINK]")),
        "[THINK]Hm.[/THINK]Yes.",
        False,
        [reasoning("Hm."), text("Yes.")],
    ),
    (
        MarkedStyle(ReasoningFormat("<|channel>thought", "<channel|>"), FORMATS["gemma4"]),
        '<|channel>thought\nHm.\n<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>',
        False,
        [reasoning("Hm."), PARIS],
    ),
    (
        MarkedStyle(
            ReasoningFormat("<|START_THINKING|>", "<|END_THINKING|>"),
            FORMATS["command-r"],
            ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
        False,
        [reasoning("Hm."), text("Yes.")],
    ),
    (
        MarkedStyle(ReasoningFormat("Here is my thought process:", "Here is my response:")),
        "Here is my thought process:\n\nHm.\n\nHere is my response:\n\nYes.",
        False,
        [reasoning("Hm."), text("Yes.")],
    ),
    (MarkedStyle(THINK, None, ("<response>", "</response>")), "<response>Yes.</response>", False, [text("Yes.")]),
]
"""Style, answer, whether the prompt had begun the reasoning, and what it means."""
HARMONY: list[tuple[str, list[Part]]] = [
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        [reasoning("Hm."), text("Yes.")],
    ),
    ("<|channel|>final<|message|>Yes.", [text("Yes.")]),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        [reasoning("Hm."), PARIS],
    ),
    # the recipient before the channel; a preamble; two calls
    (
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
        [PARIS],
    ),
    (
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather"
        ' <|constrain|>json<|message|>{"city": "Paris"}<|call|><|start|>assistant<|channel|>commentary '
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome", "days": 2}<|call|>',
        [text("I look."), PARIS, ROME],
    ),
    # malformed arguments; a header cut off; none at all
    (
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{city: Paris}<|call|>",
        [text("{city: Paris}")],
    ),
    ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>fin", [reasoning("Hm.")]),
    ("Yes.", [text("Yes.")]),
]
