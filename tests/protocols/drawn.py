"""Conversations, requests and answers made up of what both OpenAI's and Anthropic's dialect have words for."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from msgspec.structs import replace

from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    DocumentContent,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    Sampling,
    TextContent,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
TEXTS = st.builds(TextContent, WORDS)
IMAGES = st.builds(
    ImageContent, data=st.binary(max_size=8).map(b"?".__add__), media_type=st.just("image/png")
) | st.builds(ImageContent, url=st.just("https://x/y.png"))
DOCUMENTS = st.builds(DocumentContent, data=st.binary(max_size=8).map(b"%PDF-".__add__), name=WORDS)
CONTENTS = st.lists(TEXTS | IMAGES | DOCUMENTS, min_size=1, max_size=3).map(tuple)
TEXTS_ONLY = st.lists(TEXTS, min_size=1, max_size=2).map(tuple)
TOOLS = st.lists(
    st.builds(
        Tool,
        name=NAMES,
        description=WORDS | st.just(""),
        parameters=st.dictionaries(WORDS.filter(lambda key: key != "type"), VALUES, min_size=1, max_size=2).map(
            lambda schema: json.dumps({"type": "object"} | schema, ensure_ascii=False)
        ),
        strict=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda tool: tool.name,
).map(tuple)


@st.composite
def turns(draw: st.DrawFn, *, is_shared: bool) -> list[Message]:
    """A conversation of well-formed turns: every call is answered, and the user speaks last.

    `is_shared`: without what OpenAI's dialect has no words for.
    """
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message(role=Role.SYSTEM, content=draw(TEXTS_ONLY)))
    num_calls = 0
    for _ in range(draw(st.integers(0, 3))):
        messages.append(Message(role=Role.USER, content=draw(CONTENTS)))
        if draw(st.booleans()):
            messages.append(Message(role=Role.SYSTEM, content=draw(TEXTS_ONLY)))
        reasoning = draw(WORDS | st.just(""))
        calls = tuple(
            ToolCall(
                call_id=f"call_{num_calls + index}",
                name=draw(NAMES),
                arguments=json.dumps(draw(OBJECTS), ensure_ascii=False),
            )
            for index in range(draw(st.integers(0, 2)))
        )
        num_calls += len(calls)
        messages.append(
            Message(
                role=Role.ASSISTANT,
                content=draw(TEXTS_ONLY if not calls else TEXTS_ONLY | st.just(())),
                reasoning=reasoning,
                reasoning_signature="" if is_shared or not reasoning else draw(st.sampled_from(["", "another's"])),
                tool_calls=calls,
            )
        )
        messages += [
            Message(
                role=Role.TOOL,
                content=draw(CONTENTS | st.just(())),
                name=call.name,
                tool_call_id=call.call_id,
                is_error=not is_shared and draw(st.booleans()),
            )
            for call in calls
        ]
    return [*messages, Message(role=Role.USER, content=draw(CONTENTS))]


@st.composite
def requests(draw: st.DrawFn, *, is_shared: bool = False) -> GenerationRequest:
    """A request; `is_shared`: one that both dialects can say."""
    tools = draw(TOOLS)
    modes = [ToolChoice()]
    if tools:
        named = ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(draw(st.sampled_from(tools)).name,))
        modes += [ToolChoice(mode=ToolChoiceMode.NONE), ToolChoice(mode=ToolChoiceMode.REQUIRED), named]
    choice = draw(st.sampled_from(modes))
    has_schema = choice.mode is not ToolChoiceMode.REQUIRED and draw(st.booleans())
    schema = json.dumps(draw(OBJECTS)) if has_schema else None
    # in OpenAI's dialect a function that is named is called once
    may_be_several = choice.mode is not ToolChoiceMode.NONE and not (is_shared and choice.names)
    is_parallel = draw(st.booleans()) and may_be_several if tools else True
    effort = draw(st.sampled_from([None, "low", "high"]))
    budget = draw(st.integers(1, 9999))
    own = [Thinking(effort=effort, is_adaptive=True), Thinking(is_enabled=True, effort=effort, budget_tokens=budget)]
    thinking = [Thinking(is_enabled=False), Thinking(is_enabled=True, effort=effort), *([] if is_shared else own)]
    param = "output_config.format.schema"
    prompt = ChatPrompt(
        messages=tuple(draw(turns(is_shared=is_shared))),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=is_parallel or choice.mode is ToolChoiceMode.NONE,
        thinking=draw(st.sampled_from(thinking)),
    )
    return GenerationRequest(
        request_id="r",
        model=draw(WORDS),
        prompt=prompt if is_shared else marked(prompt, draw(st.sampled_from([None, "5m", "1h"]))),
        sampling=Sampling(
            max_tokens=draw(st.integers(1, 9999)),
            fits_context=True,
            temperature=draw(st.none() | st.floats(0, 1)),
            top_p=draw(st.none() | st.floats(0, 1)),
            top_k=draw(st.none() | st.integers(0, 100)),
            stop=tuple(draw(st.lists(WORDS, max_size=3))),
            grammar=Grammar(kind=GrammarKind.JSON_SCHEMA, param=param, text=schema) if schema else None,
        ),
    )


def marked(prompt: ChatPrompt, ttl: str | None) -> ChatPrompt:
    """A cache mark wherever one can be."""

    def marked_message(message: Message) -> Message:
        return replace(
            message,
            content=tuple(replace(piece, cache_ttl=ttl) for piece in message.content),
            tool_calls=tuple(replace(call, cache_ttl=ttl) for call in message.tool_calls),
            cache_ttl=ttl if message.role is Role.TOOL else None,
        )

    return replace(
        prompt,
        messages=tuple(marked_message(message) for message in prompt.messages),
        tools=tuple(replace(tool, cache_ttl=ttl) for tool in prompt.tools),
        cache_ttl=ttl,
    )


PIECES = st.lists(WORDS, min_size=1, max_size=3)
ENDS = st.sampled_from(
    [
        ChoiceEnd(0, FinishReason.STOP),
        ChoiceEnd(0, FinishReason.STOP, "END"),
        ChoiceEnd(0, FinishReason.LENGTH),
        ChoiceEnd(0, FinishReason.LENGTH, is_context_full=True),
        ChoiceEnd(0, FinishReason.TOOL_CALLS),
        ChoiceEnd(0, FinishReason.CONTENT_FILTER),
    ]
)


@st.composite
def parts(draw: st.DrawFn, *, is_shared: bool) -> list[Event]:
    kind = draw(st.sampled_from(PartKind))
    is_signed = kind is PartKind.REASONING and not is_shared
    signature = draw(st.sampled_from(["", "another's"])) if is_signed else ""
    is_call = kind is PartKind.TOOL_CALL
    pieces = draw(PIECES)
    return [
        PartStart(0, kind, "call_1", draw(NAMES)) if is_call else PartStart(0, kind),
        *(PartDelta(0, piece) for piece in pieces),
        PartEnd(0, signature=signature),
    ]


@st.composite
def answers(draw: st.DrawFn, *, is_shared: bool = False) -> list[Event]:
    """The events of an answer; `is_shared`: one that both dialects can say."""
    num_prompt = draw(st.integers(1, 999))
    num_cached = draw(st.integers(0, num_prompt))
    usage = Usage(
        num_prompt_tokens=num_prompt,
        num_cached_tokens=num_cached,
        num_cache_written_tokens=None if is_shared else draw(st.integers(0, num_prompt - num_cached)),
        num_completion_tokens=draw(st.integers(0, 999)),
        num_reasoning_tokens=draw(st.integers(0, 99)),
    )
    body = [event for part in draw(st.lists(parts(is_shared=is_shared), max_size=4)) for event in part]
    end = draw(st.sampled_from([ChoiceEnd(0, reason) for reason in FinishReason]) if is_shared else ENDS)
    return [PromptReady(num_prompt), *body, end, Finished(usage)]
