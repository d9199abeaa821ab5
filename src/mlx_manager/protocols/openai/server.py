"""From a request's body to `ir.GenerationRequest`s: what the fields of the wire schema mean together."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import GenerationRequest, Prompt, Sampling, TextPrompt, TokenPrompt
from mlx_manager.protocols.field_names import FieldNames
from mlx_manager.protocols.model_name import with_model
from mlx_manager.protocols.openai.conversation import parse_conversation
from mlx_manager.protocols.openai.grammar import parse_grammar
from mlx_manager.protocols.openai.parameters import Endpoint, passed_on, screen
from mlx_manager.protocols.openai.sampling import check_calls, parse_sampling
from mlx_manager.protocols.openai.wire import ChatRequest, CompletionRequest
from mlx_manager.protocols.priority import parse_priority
from mlx_manager.protocols.wire import parse_wire


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
    names: FieldNames
    """How the fields were sent that an error may be about."""
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


def parse_chat(
    body: bytes, *, answer_id: str, priority_header: str | None = None, default_model: str | None = None
) -> Call:
    """Read the body of POST /v1/chat/completions. `answer_id` must be unique.

    `default_model` answers where none is named. Raises `InvalidRequest`.
    """
    wire = with_model(parse_wire(ChatRequest, body), default_model)
    ignored = screen(Endpoint.CHAT, wire.model_extra or {})
    logprobs = bool(wire.logprobs)
    if wire.top_logprobs and not logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: send logprobs: true with it.", param="top_logprobs")
    sampling = _sampling_of(wire, logprobs=logprobs, top_logprobs=wire.top_logprobs or 0)
    prompt = parse_conversation(wire)
    check_calls(prompt, sampling)
    return _call(wire, (prompt,), sampling, answer_id=answer_id, priority_header=priority_header, ignored=ignored)


def parse_completion(
    body: bytes, *, answer_id: str, priority_header: str | None = None, default_model: str | None = None
) -> Call:
    """Read the body of POST /v1/completions. `answer_id` must be unique.

    `default_model` answers where none is named. Raises `InvalidRequest`.
    """
    wire = with_model(parse_wire(CompletionRequest, body), default_model)
    ignored = screen(Endpoint.COMPLETIONS, wire.model_extra or {})
    if wire.echo and wire.logprobs is not None:
        raise UnsupportedParameter(
            "echo with logprobs is not supported: the prompt's log-probabilities are not served. Leave one out.",
            param="echo",
        )
    sampling = _sampling_of(wire, logprobs=wire.logprobs is not None, top_logprobs=wire.logprobs or 0)
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
    priority = parse_priority(wire.priority, priority_header)
    endpoint = Endpoint.CHAT if isinstance(wire, ChatRequest) else Endpoint.COMPLETIONS
    told = passed_on(endpoint, wire.model_extra or {})
    requests = tuple(
        GenerationRequest(
            request_id=answer_id if len(prompts) == 1 else f"{answer_id}-{index}",
            model=wire.model,
            prompt=prompt,
            sampling=sampling,
            num_choices=wire.n or 1,
            priority=priority,
            echo=isinstance(wire, CompletionRequest) and bool(wire.echo),
            passed_on=told,
        )
        for index, prompt in enumerate(prompts)
    )
    include_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return Call(
        requests=requests,
        stream=bool(wire.stream),
        include_usage=include_usage,
        ignored=ignored,
        names=FieldNames(
            "messages" if isinstance(wire, ChatRequest) else "prompt",
            "max_tokens" if wire.max_completion_tokens is None else "max_completion_tokens",
        ),
        has_functions=isinstance(wire, ChatRequest) and bool(wire.functions),
    )


def _sampling_of(wire: ChatRequest | CompletionRequest, *, logprobs: bool, top_logprobs: int) -> Sampling:
    max_tokens = wire.max_completion_tokens
    if max_tokens is None:
        max_tokens = wire.max_tokens
    elif wire.max_tokens not in (None, max_tokens):
        raise InvalidRequest("max_tokens and max_completion_tokens differ: send one of them.", param="max_tokens")
    return parse_sampling(
        wire, max_tokens=max_tokens, grammar=parse_grammar(wire), logprobs=logprobs, top_logprobs=top_logprobs
    )


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
