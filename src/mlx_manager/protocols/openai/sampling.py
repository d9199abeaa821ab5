"""How tokens are to be chosen and how urgent that is, from the fields that every generating endpoint shares."""

from __future__ import annotations

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Grammar, GrammarKind, Sampling, ToolChoiceMode
from mlx_manager.protocols.openai.wire import MAX_STOPS, SamplingFields


def parse_sampling(
    wire: SamplingFields,
    *,
    max_tokens: int | None,
    grammar: Grammar | None,
    logprobs: bool,
    top_logprobs: int,
) -> Sampling:
    """The sampling of a request. Raises `InvalidRequest` for stop strings that cannot be meant."""
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
        grammar=grammar,
        stop=_parse_stop(wire.stop),
        ignore_eos=bool(wire.ignore_eos),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
    )


def check_calls(prompt: ChatPrompt, sampling: Sampling) -> None:
    """Raises `InvalidRequest` where what is said about tool calls and about the rest of the answer cannot both hold."""
    is_required = prompt.tool_choice.mode is ToolChoiceMode.REQUIRED
    grammar = sampling.grammar
    if is_required and grammar is not None and grammar.kind in (GrammarKind.REGEX, GrammarKind.LARK):
        raise InvalidRequest(
            f"tool_choice asks for a tool call, and {grammar.param} for a text: send one of them.", param="tool_choice"
        )
    if sampling.ignore_eos and (is_required or any(tool.strict for tool in prompt.tools)):
        raise InvalidRequest("ignore_eos would go on behind the end of a tool call: leave it out.", param="ignore_eos")


def _parse_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"stop has {len(stops)} strings: send at most {MAX_STOPS}.", param="stop")
    if "" in stops:
        raise InvalidRequest("stop has an empty string, which would stop at once: leave it out.", param="stop")
    return stops
