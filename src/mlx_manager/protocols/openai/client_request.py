"""A request of ours in OpenAI's dialect, to be sent to somebody who speaks it. The other way round: `server`."""

from __future__ import annotations

import json
from typing import Any

from mlx_manager.errors import UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    DocumentContent,
    GenerationRequest,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    VideoContent,
)
from mlx_manager.protocols.data_urls import encode_base64
from mlx_manager.protocols.documents import PDF
from mlx_manager.protocols.images import render_image_url

CHAT_PATH, COMPLETIONS_PATH = "/chat/completions", "/completions"


def render_request(request: GenerationRequest, *, is_extended: bool, provider: str) -> tuple[str, dict[str, Any]]:
    """Path and body of a streamed call. `is_extended`: the server also knows what open servers add to the dialect.

    Raises `UnsupportedParameter` for what it does not know.
    """
    extensions = _Extensions(is_known=is_extended, provider=provider)
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_render_sampling(request.sampling, extensions),
    }
    if request.num_choices > 1:
        body["n"] = request.num_choices
    match request.prompt:
        case ChatPrompt() as prompt:
            lengths = _render_chat_lengths(request.sampling, is_extended=is_extended)
            return CHAT_PATH, body | _render_chat(prompt, extensions) | lengths
        case TextPrompt(text=text):
            body["prompt"] = text
        case TokenPrompt(token_ids=token_ids):
            body["prompt"] = list(token_ids)
    if request.sampling.max_tokens is not None:
        body["max_tokens"] = request.sampling.max_tokens
    if request.sampling.logprobs:
        body["logprobs"] = request.sampling.top_logprobs
    if request.echo:
        body["echo"] = True
    return COMPLETIONS_PATH, body


class _Extensions:
    """What open servers add to the dialect, and whether the one that is asked has it."""

    def __init__(self, *, is_known: bool, provider: str) -> None:
        self.is_known = is_known
        self._provider = provider

    def render(self, asked: dict[str, Any], neutral: dict[str, Any]) -> dict[str, Any]:
        """What is asked for. Raises `UnsupportedParameter` where the server does not know it, and it would matter."""
        said = {name: value for name, value in asked.items() if value is not None}
        if self.is_known:
            return said
        for name, value in said.items():
            if name not in neutral or value != neutral[name]:
                raise UnsupportedParameter(
                    f"{self._provider} does not know {name}, and would answer: leave it out.", param=name
                )
        return {}

    def check_videos(self) -> None:
        """Raises `UnsupportedParameter` where videos are not taken."""
        if not self.is_known:
            raise UnsupportedParameter(
                f"{self._provider} takes no videos: send frames of them as images, in their order.", param="messages"
            )


def _render_chat_lengths(sampling: Sampling, *, is_extended: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if sampling.max_tokens is not None:
        body["max_tokens" if is_extended else "max_completion_tokens"] = sampling.max_tokens
    if sampling.logprobs:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return body


_NEUTRAL = {"top_k": 0, "min_p": 0, "repetition_penalty": 1, "ignore_eos": False}
"""Values that say no more than the field left out says to somebody who does not know it."""


def _render_sampling(sampling: Sampling, extensions: _Extensions) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p", "seed"):
        if getattr(sampling, name) is not None:
            body[name] = getattr(sampling, name)
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            body[name] = getattr(sampling, name)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    asked = {name: getattr(sampling, name) for name in ("top_k", "min_p", "repetition_penalty")}
    body |= extensions.render(asked | {"ignore_eos": sampling.ignore_eos or None}, _NEUTRAL)
    return body if sampling.grammar is None else body | _render_grammar(sampling.grammar, extensions)


def _render_grammar(grammar: Grammar, extensions: _Extensions) -> dict[str, Any]:
    """A schema is told in the dialect's own words, whichever field it came in: every server knows those."""
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case GrammarKind.JSON_SCHEMA:
            schema = {"name": "answer", "schema": json.loads(grammar.text), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case GrammarKind.REGEX:
            return extensions.render({"guided_regex": grammar.text}, {})
        case GrammarKind.LARK:
            return extensions.render({"guided_grammar": grammar.text}, {})


def _render_chat(prompt: ChatPrompt, extensions: _Extensions) -> dict[str, Any]:
    if any(isinstance(piece, VideoContent) for said in prompt.messages for piece in said.visuals):
        extensions.check_videos()
    body: dict[str, Any] = {
        "messages": [_render_message(message, is_extended=extensions.is_known) for message in prompt.messages]
    }
    if prompt.tools:
        body["tools"] = [_render_tool(tool) for tool in prompt.tools]
        body["tool_choice"] = _render_tool_choice(prompt.tool_choice)
        if not prompt.parallel_tool_calls and not _names_one_tool(prompt.tool_choice):
            body["parallel_tool_calls"] = False
    if prompt.thinking.effort is not None:
        body["reasoning_effort"] = prompt.thinking.effort
    variables = dict(prompt.template_kwargs) or None
    asked: dict[str, Any] = {"chat_template_kwargs": variables}
    if prompt.continue_final_message:
        asked |= {"continue_final_message": True, "add_generation_prompt": False}
    body |= extensions.render(asked, {})
    if prompt.thinking.is_enabled is not None and extensions.is_known:
        # elsewhere a model thinks or does not: there is no switch, and the answer holds either way
        switch = {"enable_thinking": prompt.thinking.is_enabled}
        body["chat_template_kwargs"] = (variables or {}) | switch
    return body


def _render_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json.loads(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _names_one_tool(choice: ToolChoice) -> bool:
    """Whether it is rendered as a function that is named, which is called once, whatever parallel_tool_calls says."""
    return len(choice.names) == 1 and choice.mode is ToolChoiceMode.REQUIRED


def _render_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if not choice.names or choice.mode is ToolChoiceMode.NONE:
        return choice.mode.value
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if _names_one_tool(choice):
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode.value, "tools": named}}


def _render_message(message: Message, *, is_extended: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": _render_contents(message)}
    if message.role is Role.TOOL:
        body["tool_call_id"] = message.tool_call_id
    elif message.name is not None:
        body["name"] = message.name
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.reasoning and is_extended:
        body["reasoning_content"] = message.reasoning
    return body


def _render_contents(message: Message) -> str | list[dict[str, Any]] | None:
    match message.content:
        case () | (TextContent(""),):
            return None if message.tool_calls else ""
        case (TextContent(text),):
            return text
        case pieces:
            return [_render_content(piece) for piece in pieces]


def _render_content(piece: Content) -> dict[str, Any]:
    match piece:
        case TextContent(text):
            return {"type": "text", "text": text}
        case ImageContent(detail=detail):
            url = render_image_url(piece)
            return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}
        case VideoContent(frames=()):
            return {"type": "video_url", "video_url": {"url": _url_of(piece)}}
        case VideoContent(frames=frames):
            return {"type": "video", "video": [render_image_url(frame) for frame in frames]}
        case DocumentContent(data=data, name=name):
            # the dialect wants a name
            file = {"filename": name or "document.pdf", "file_data": f"data:{PDF};base64,{encode_base64(data)}"}
            return {"type": "file", "file": file}


def _url_of(video: VideoContent) -> str:
    media_type = video.media_type or "video/mp4"
    return f"data:{media_type};base64,{encode_base64(video.data)}" if video.data else video.url
