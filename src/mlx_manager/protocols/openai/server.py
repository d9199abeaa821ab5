"""From a request's body to `ir.GenerationRequest`s: what the fields of the wire schema mean together."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    GenerationRequest,
    Priority,
    Prompt,
    Sampling,
    TextPrompt,
    TokenPrompt,
    ToolChoiceMode,
)
from mlx_manager.protocols.openai.conversation import parse_conversation
from mlx_manager.protocols.openai.grammar import parse_grammar
from mlx_manager.protocols.openai.parameters import Endpoint, screen
from mlx_manager.protocols.openai.wire import (
    MAX_STOPS,
    ChatRequest,
    CompletionRequest,
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
    has_functions: bool = False
    """Whether the tools came as `functions`, so that calls are answered in that form."""

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
    sampling = _parse_sampling(wire, logprobs=logprobs, top_logprobs=wire.top_logprobs or 0)
    prompt = parse_conversation(wire)
    _check_calls(prompt, sampling)
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


def _check_calls(prompt: ChatPrompt, sampling: Sampling) -> None:
    """Raises `InvalidRequest` where what is said about tool calls and about the rest of the answer cannot both hold."""
    is_required = prompt.tool_choice.mode is ToolChoiceMode.REQUIRED
    if is_required and sampling.grammar is not None:
        name = sampling.grammar.param.split(".")[0]
        raise InvalidRequest(
            f"tool_choice asks for a tool call, and {name} for a text: send one of them.", param="tool_choice"
        )
    if sampling.ignore_eos and (is_required or any(tool.strict for tool in prompt.tools)):
        raise InvalidRequest("ignore_eos would go on behind the end of a tool call: leave it out.", param="ignore_eos")


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
    return Call(
        requests=requests,
        stream=bool(wire.stream),
        include_usage=include_usage,
        ignored=ignored,
        has_functions=isinstance(wire, ChatRequest) and bool(wire.functions),
    )


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
