"""From a request's body to `ir.GenerationRequest`s: what the fields of the wire schema mean together."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    GenerationRequest,
    Message,
    Priority,
    Prompt,
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    TokenPrompt,
)
from mlx_manager.protocols.openai.grammar import parse_grammar
from mlx_manager.protocols.openai.parameters import Endpoint, screen
from mlx_manager.protocols.openai.wire import (
    MAX_STOPS,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ContentPart,
    parse_wire,
)


@dataclass(frozen=True)
class Call:
    """A parsed HTTP request: what to generate, and in which form to answer.

    `requests` has one entry per prompt; choice c of prompt p is choice p * num_choices + c of the answer.
    """

    requests: tuple[GenerationRequest, ...]
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    """Parameters accepted without effect, to be named in the answer's header."""

    @property
    def model(self) -> str:
        """The model as the client named it."""
        return self.requests[0].model

    @property
    def num_choices(self) -> int:
        """Choices of each prompt."""
        return self.requests[0].num_choices


def parse_chat(body: bytes, *, answer_id: str, priority_header: str | None = None) -> Call:
    """Read the body of POST /v1/chat/completions. `answer_id` must be unique. Raises `InvalidRequest`."""
    wire = parse_wire(ChatRequest, body)
    ignored = screen(Endpoint.CHAT, wire.model_extra or {})
    logprobs = bool(wire.logprobs)
    if wire.top_logprobs and not logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: send logprobs: true with it.", param="top_logprobs")
    prompt = ChatPrompt(
        messages=tuple(_parse_message(message, f"messages[{i}]") for i, message in enumerate(wire.messages)),
        continue_final_message=_continues_final_message(wire),
    )
    sampling = _parse_sampling(wire, logprobs=logprobs, top_logprobs=wire.top_logprobs or 0)
    return _call(wire, (prompt,), sampling, answer_id=answer_id, priority_header=priority_header, ignored=ignored)


def parse_completion(body: bytes, *, answer_id: str, priority_header: str | None = None) -> Call:
    """Read the body of POST /v1/completions. `answer_id` must be unique. Raises `InvalidRequest`."""
    wire = parse_wire(CompletionRequest, body)
    ignored = screen(Endpoint.COMPLETIONS, wire.model_extra or {})
    if wire.echo and wire.logprobs is not None:
        raise UnsupportedParameter(
            "echo with logprobs is not supported: the prompt's log-probabilities are not served. Leave one out.",
            param="echo",
        )
    sampling = _parse_sampling(wire, logprobs=wire.logprobs is not None, top_logprobs=wire.logprobs or 0)
    prompts = _parse_prompts(wire)
    return _call(wire, prompts, sampling, answer_id=answer_id, priority_header=priority_header, ignored=ignored)


def _call(
    wire: ChatRequest | CompletionRequest,
    prompts: tuple[Prompt, ...],
    sampling: Sampling,
    *,
    answer_id: str,
    priority_header: str | None,
    ignored: tuple[str, ...],
) -> Call:
    priority = _parse_priority(wire.priority, priority_header)
    requests = tuple(
        GenerationRequest(
            request_id=answer_id if len(prompts) == 1 else f"{answer_id}-{index}",
            model=wire.model,
            prompt=prompt,
            sampling=sampling,
            num_choices=wire.n or 1,
            priority=priority,
            echo=isinstance(wire, CompletionRequest) and bool(wire.echo),
        )
        for index, prompt in enumerate(prompts)
    )
    include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return Call(requests=requests, stream=bool(wire.stream), include_usage=include_usage, ignored=ignored)


def _parse_sampling(wire: ChatRequest | CompletionRequest, *, logprobs: bool, top_logprobs: int) -> Sampling:
    max_tokens = wire.max_completion_tokens
    if max_tokens is None:
        max_tokens = wire.max_tokens
    elif wire.max_tokens not in (None, max_tokens):
        raise InvalidRequest("max_tokens and max_completion_tokens differ: send one of them.", param="max_tokens")
    return Sampling(
        max_tokens=max_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=None if wire.top_k is None else max(wire.top_k, 0),
        min_p=wire.min_p,
        # a negative seed is as good as any; the sampler's keys are made of whole numbers
        seed=None if wire.seed is None else wire.seed % 2**63,
        repetition_penalty=wire.repetition_penalty,
        presence_penalty=wire.presence_penalty or 0.0,
        frequency_penalty=wire.frequency_penalty or 0.0,
        logit_bias={int(token_id): bias for token_id, bias in (wire.logit_bias or {}).items()},
        grammar=parse_grammar(wire),
        stop=_parse_stop(wire.stop),
        ignore_eos=bool(wire.ignore_eos),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
    )


def _parse_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"stop has {len(stops)} strings: send at most {MAX_STOPS}.", param="stop")
    if "" in stops:
        raise InvalidRequest("stop has an empty string, which would stop at once: leave it out.", param="stop")
    return stops


def _parse_priority(field: str | None, header: str | None) -> Priority:
    if field is not None or header is None:
        return Priority(field or Priority.NORMAL)
    word = header.strip().lower()
    if word not in list(Priority):
        raise InvalidRequest(
            f"The header X-Priority cannot be {word[:40]!r}: send high, normal or low.", param="X-Priority"
        )
    return Priority(word)


def _parse_prompts(wire: CompletionRequest) -> tuple[Prompt, ...]:
    if isinstance(wire.prompt, str):
        return (TextPrompt(text=wire.prompt),)
    texts = [entry for entry in wire.prompt if isinstance(entry, str)]
    token_lists = [entry for entry in wire.prompt if isinstance(entry, list)]
    if texts:
        return tuple(TextPrompt(text=text) for text in texts)
    if token_lists:
        return tuple(TokenPrompt(token_ids=tuple(token_ids)) for token_ids in token_lists)
    return (TokenPrompt(token_ids=tuple(entry for entry in wire.prompt if isinstance(entry, int))),)


_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_REFUSED_IN_MESSAGES = ("tool_calls", "function_call", "audio", "prefix")
"""Fields of a message that would change the prompt; null, empty and false ones are the same as none."""


def _parse_message(message: ChatMessage, at: str) -> Message:
    if message.role in ("tool", "function"):
        raise UnsupportedParameter(
            f"{at}.role {message.role!r} is not supported: tool calls are not served yet.", param=f"{at}.role"
        )
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{at}.role cannot be {message.role[:40]!r}: send one of {', '.join(_ROLES)}.", param=f"{at}.role"
        )
    for name in _REFUSED_IN_MESSAGES:
        if (message.model_extra or {}).get(name):
            raise UnsupportedParameter(f"{at}.{name} is not supported: leave it out.", param=f"{at}.{name}")
    if message.content is None and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{at}.content is required: send a string or a list of text parts.", param=f"{at}.content")
    return Message(role=role, content=_parse_content(message.content, f"{at}.content"), name=message.name)


def _parse_content(content: str | list[ContentPart] | None, at: str) -> tuple[Content, ...]:
    if content is None or isinstance(content, str):
        return (TextContent(content),) if content else ()
    return tuple(_parse_part(part, f"{at}[{index}]") for index, part in enumerate(content))


def _parse_part(part: ContentPart, at: str) -> Content:
    if part.type == "text":
        if part.text is None:
            raise InvalidRequest(f"{at}.text is required: send a string.", param=f"{at}.text")
        return TextContent(part.text)
    if part.type == "refusal":
        return TextContent(part.refusal or "")
    if part.type in ("image_url", "input_audio", "file", "video_url", "audio_url"):
        raise UnsupportedParameter(
            f"{at} is of type {part.type}, which is not supported: send parts of type text only.", param=f"{at}.type"
        )
    raise InvalidRequest(f"{at}.type cannot be {part.type[:40]!r}: send parts of type text.", param=f"{at}.type")


def _continues_final_message(wire: ChatRequest) -> bool:
    """Whether the last message is one to go on with, rather than a turn to answer."""
    wants_start = wire.add_generation_prompt
    if wire.continue_final_message and wants_start:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other: send one of them.",
            param="continue_final_message",
        )
    if not wire.continue_final_message and wants_start is not False:
        return False
    param = "continue_final_message" if wire.continue_final_message else "add_generation_prompt"
    if wire.messages[-1].role != "assistant":
        raise InvalidRequest(
            f"{param} asks to go on with the last message, which must then be the assistant's.", param=param
        )
    return True
