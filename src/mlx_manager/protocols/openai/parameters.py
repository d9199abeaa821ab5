"""What this server does with every parameter that clients of the OpenAI dialect send, as one table.

A parameter that is not in the table is unknown: accepted, and named in the answer's `x-mlx-manager-ignored` header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from mlx_manager.errors import UnsupportedParameter


class Endpoint(StrEnum):
    """Where a parameter is sent."""

    CHAT = "chat"
    COMPLETIONS = "completions"


class Support(StrEnum):
    """What becomes of a parameter."""

    SERVED = "served"
    HARMLESS = "harmless"
    """Accepted: it cannot change the answer."""
    IGNORED = "ignored"
    """Accepted as the hint that it is, without effect here, and the answer's header says so."""
    REFUSED = "refused"
    """It would change the answer: 400, unless it has one of its `neutral` values."""


@dataclass(frozen=True)
class Parameter:
    """One row. `note` says where a served one goes, why another is harmless, or what to do about a refused one."""

    name: str
    support: Support
    note: str
    neutral: tuple[Any, ...] = ()
    """Values besides null at which a refused parameter changes nothing."""
    endpoints: tuple[Endpoint, ...] = (Endpoint.CHAT, Endpoint.COMPLETIONS)


_CHAT = (Endpoint.CHAT,)
_COMPLETIONS = (Endpoint.COMPLETIONS,)

_SERVED = (
    Parameter("model", Support.SERVED, "request.model"),
    Parameter("messages", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Parameter("prompt", Support.SERVED, "request.prompt", endpoints=_COMPLETIONS),
    Parameter("max_tokens", Support.SERVED, "sampling.max_tokens"),
    Parameter("max_completion_tokens", Support.SERVED, "sampling.max_tokens"),
    Parameter("temperature", Support.SERVED, "sampling.temperature"),
    Parameter("top_p", Support.SERVED, "sampling.top_p"),
    Parameter("top_k", Support.SERVED, "sampling.top_k"),
    Parameter("min_p", Support.SERVED, "sampling.min_p"),
    Parameter("seed", Support.SERVED, "sampling.seed"),
    Parameter("repetition_penalty", Support.SERVED, "sampling.repetition_penalty"),
    Parameter("presence_penalty", Support.SERVED, "sampling.presence_penalty"),
    Parameter("frequency_penalty", Support.SERVED, "sampling.frequency_penalty"),
    Parameter("logit_bias", Support.SERVED, "sampling.logit_bias"),
    Parameter("response_format", Support.SERVED, "sampling.grammar"),
    Parameter("guided_json", Support.SERVED, "sampling.grammar: a JSON Schema, or its text"),
    Parameter("guided_regex", Support.SERVED, "sampling.grammar"),
    Parameter("guided_grammar", Support.SERVED, "sampling.grammar: in Lark's form"),
    Parameter("stop", Support.SERVED, "sampling.stop"),
    Parameter("ignore_eos", Support.SERVED, "sampling.ignore_eos"),
    Parameter("n", Support.SERVED, "request.num_choices"),
    Parameter("logprobs", Support.SERVED, "sampling.logprobs"),
    Parameter("top_logprobs", Support.SERVED, "sampling.top_logprobs", endpoints=_CHAT),
    Parameter("priority", Support.SERVED, "request.priority"),
    Parameter("stream", Support.SERVED, "the form of the answer"),
    Parameter("stream_options", Support.SERVED, "the form of the answer"),
    Parameter("echo", Support.SERVED, "request.echo", endpoints=_COMPLETIONS),
    Parameter("continue_final_message", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Parameter("add_generation_prompt", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Parameter("tools", Support.SERVED, "prompt.tools", endpoints=_CHAT),
    Parameter("tool_choice", Support.SERVED, "prompt.tool_choice", endpoints=_CHAT),
    Parameter("parallel_tool_calls", Support.SERVED, "prompt.parallel_tool_calls", endpoints=_CHAT),
    Parameter("functions", Support.SERVED, "prompt.tools: the form before tools", endpoints=_CHAT),
    Parameter("function_call", Support.SERVED, "prompt.tool_choice: the form before tool_choice", endpoints=_CHAT),
    Parameter("reasoning_effort", Support.SERVED, "prompt.thinking", endpoints=_CHAT),
    Parameter("enable_thinking", Support.SERVED, "prompt.thinking", endpoints=_CHAT),
    Parameter("chat_template_kwargs", Support.SERVED, "prompt.template_kwargs", endpoints=_CHAT),
)

_HARMLESS = (
    Parameter("user", Support.HARMLESS, "names the client's own user"),
    Parameter("safety_identifier", Support.HARMLESS, "names the client's own user"),
    Parameter("metadata", Support.HARMLESS, "labels for the provider's records"),
    Parameter("store", Support.HARMLESS, "asks the provider to keep the answer"),
    Parameter("service_tier", Support.HARMLESS, "chooses a price"),
    Parameter("prompt_cache_key", Support.HARMLESS, "prefixes are found by their content"),
    Parameter("prompt_cache_options", Support.HARMLESS, "prefixes are found by their content"),
    Parameter("prompt_cache_retention", Support.HARMLESS, "prefixes are found by their content"),
    Parameter("cache_prompt", Support.HARMLESS, "prefixes are always cached"),
    Parameter("prediction", Support.HARMLESS, "only speeds an answer up"),
    Parameter("draft_model", Support.HARMLESS, "only speeds an answer up"),
    Parameter("num_draft_tokens", Support.HARMLESS, "only speeds an answer up"),
    Parameter("request_id", Support.HARMLESS, "send the header X-Request-Id instead"),
    Parameter("keep_alive", Support.HARMLESS, "says how long to keep the model in memory"),
    Parameter("verbosity", Support.IGNORED, "a hint to models trained on it", endpoints=_CHAT),
)

_OTHER_CONSTRAINT = "Send response_format, guided_json, guided_regex or guided_grammar instead."
_NO_SAMPLER = "That sampler is not served: leave it out; temperature, top_p, top_k and min_p are."
_TEXT_ONLY = "Answers are text only: leave it out."
_FIXED_TEMPLATE = "The model's own chat template is used as it is: leave it out."

_REFUSED = (
    Parameter("guided_choice", Support.REFUSED, _OTHER_CONSTRAINT),
    Parameter("structured_outputs", Support.REFUSED, _OTHER_CONSTRAINT),
    Parameter("json_schema", Support.REFUSED, _OTHER_CONSTRAINT),
    Parameter("grammar", Support.REFUSED, _OTHER_CONSTRAINT, ("",)),
    Parameter("audio", Support.REFUSED, _TEXT_ONLY, endpoints=_CHAT),
    Parameter("modalities", Support.REFUSED, _TEXT_ONLY, (["text"], []), _CHAT),
    Parameter("web_search_options", Support.REFUSED, "The web is not searched: leave it out.", endpoints=_CHAT),
    Parameter("moderation", Support.REFUSED, "Nothing is moderated here: leave it out.", endpoints=_CHAT),
    Parameter("documents", Support.REFUSED, "Put the documents into a message.", ([],), _CHAT),
    Parameter("chat_template", Support.REFUSED, _FIXED_TEMPLATE, endpoints=_CHAT),
    Parameter("echo", Support.REFUSED, "Echo is served on /v1/completions only: leave it out.", (False,), _CHAT),
    Parameter("add_special_tokens", Support.REFUSED, _FIXED_TEMPLATE, (False,), _CHAT),
    Parameter("add_special_tokens", Support.REFUSED, "Send token ids as the prompt instead.", (True,), _COMPLETIONS),
    Parameter("suffix", Support.REFUSED, "Text is not inserted between two others: leave it out.", ("",), _COMPLETIONS),
    Parameter("best_of", Support.REFUSED, "Ask for n choices and pick the best of them.", (1,)),
    Parameter("use_beam_search", Support.REFUSED, "Beam search is not served: leave it out.", (False,)),
    Parameter("length_penalty", Support.REFUSED, "Beam search is not served: leave it out.", (1,)),
    Parameter("repeat_penalty", Support.REFUSED, "It is called repetition_penalty here.", (1,)),
    Parameter("repetition_context_size", Support.REFUSED, "repetition_penalty looks at all tokens: leave it out."),
    Parameter("min_tokens", Support.REFUSED, "A least length is not served; see ignore_eos.", (0,)),
    Parameter("stop_token_ids", Support.REFUSED, "Send the text of these tokens as stop.", ([],)),
    Parameter("include_stop_str_in_output", Support.REFUSED, "Stop strings are never in the answer.", (False,)),
    Parameter("bad_words", Support.REFUSED, "Give their tokens a logit_bias of -100.", ([],)),
    Parameter("skip_special_tokens", Support.REFUSED, "Special tokens are never in the answer.", (True,)),
    Parameter("truncate_prompt_tokens", Support.REFUSED, "Prompts are not cut: send a shorter one."),
    Parameter("prompt_logprobs", Support.REFUSED, "Log-probabilities of the prompt are not served: leave it out."),
    Parameter("typical_p", Support.REFUSED, _NO_SAMPLER, (1,)),
    Parameter("top_a", Support.REFUSED, _NO_SAMPLER, (0,)),
    Parameter("tfs_z", Support.REFUSED, _NO_SAMPLER, (1,)),
    Parameter("mirostat", Support.REFUSED, _NO_SAMPLER, (0,)),
    Parameter("dry_multiplier", Support.REFUSED, _NO_SAMPLER, (0,)),
    Parameter("xtc_probability", Support.REFUSED, _NO_SAMPLER, (0,)),
    Parameter("logits_processors", Support.REFUSED, _NO_SAMPLER, ([],)),
    Parameter("adapters", Support.REFUSED, "Adapters are not served yet: leave it out."),
    Parameter("thinking_budget", Support.REFUSED, "Thinking is not bounded; see enable_thinking.", endpoints=_CHAT),
    Parameter("images", Support.REFUSED, "Put images into a message, as parts of type image_url.", ([],)),
)

PARAMETERS: tuple[Parameter, ...] = _SERVED + _HARMLESS + _REFUSED


def screen(endpoint: Endpoint, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Judge the parameters of a request that its wire schema does not serve.

    Returns the names of those ignored, which the answer's header is to carry. Raises `UnsupportedParameter`.
    """
    return screen_rows(_ROWS[endpoint], parameters)


def screen_rows(rows: Mapping[str, Parameter], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The same by rows of another table."""
    ignored: list[str] = []
    for name, value in parameters.items():
        if value is None:
            continue
        row = rows.get(name)
        if row is None or row.support is Support.IGNORED:
            ignored.append(name)
        elif row.support is Support.REFUSED and value not in row.neutral:
            raise UnsupportedParameter(f"{name} is not supported. {row.note}", param=name)
    return tuple(ignored)


_ROWS: Mapping[Endpoint, Mapping[str, Parameter]] = MappingProxyType(
    {
        endpoint: MappingProxyType({row.name: row for row in PARAMETERS if endpoint in row.endpoints})
        for endpoint in Endpoint
    }
)
