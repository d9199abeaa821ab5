"""What this server does with every parameter that clients of the OpenAI dialect send, as one table.

A parameter that is not in the table is unknown: accepted, and named in the answer's `x-mlx-manager-ignored` header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from mlx_manager.ir import PassedOn
from mlx_manager.protocols.parameters import Parameter, Support, passed_on_of, screen_rows


class Endpoint(StrEnum):
    """Where a parameter is sent."""

    CHAT = "chat"
    COMPLETIONS = "completions"


@dataclass(frozen=True)
class Row(Parameter):
    """A parameter, and at which of the endpoints it is one."""

    endpoints: tuple[Endpoint, ...] = (Endpoint.CHAT, Endpoint.COMPLETIONS)


_CHAT = (Endpoint.CHAT,)
_COMPLETIONS = (Endpoint.COMPLETIONS,)

_SERVED = (
    Row("model", Support.SERVED, "request.model"),
    Row("messages", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Row("prompt", Support.SERVED, "request.prompt", endpoints=_COMPLETIONS),
    Row("max_tokens", Support.SERVED, "sampling.max_tokens"),
    Row("max_completion_tokens", Support.SERVED, "sampling.max_tokens"),
    Row("temperature", Support.SERVED, "sampling.temperature"),
    Row("top_p", Support.SERVED, "sampling.top_p"),
    Row("top_k", Support.SERVED, "sampling.top_k"),
    Row("min_p", Support.SERVED, "sampling.min_p"),
    Row("seed", Support.SERVED, "sampling.seed"),
    Row("repetition_penalty", Support.SERVED, "sampling.repetition_penalty"),
    Row("presence_penalty", Support.SERVED, "sampling.presence_penalty"),
    Row("frequency_penalty", Support.SERVED, "sampling.frequency_penalty"),
    Row("logit_bias", Support.SERVED, "sampling.logit_bias"),
    Row("response_format", Support.SERVED, "sampling.grammar"),
    Row("guided_json", Support.SERVED, "sampling.grammar: a JSON Schema, or its text"),
    Row("guided_regex", Support.SERVED, "sampling.grammar"),
    Row("guided_grammar", Support.SERVED, "sampling.grammar: in Lark's form"),
    Row("stop", Support.SERVED, "sampling.stop"),
    Row("ignore_eos", Support.SERVED, "sampling.ignore_eos"),
    Row("n", Support.SERVED, "request.num_choices"),
    Row("logprobs", Support.SERVED, "sampling.logprobs"),
    Row("top_logprobs", Support.SERVED, "sampling.top_logprobs", endpoints=_CHAT),
    Row("priority", Support.SERVED, "request.priority"),
    Row("stream", Support.SERVED, "the form of the answer"),
    Row("stream_options", Support.SERVED, "the form of the answer"),
    Row("echo", Support.SERVED, "request.echo", endpoints=_COMPLETIONS),
    Row("continue_final_message", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Row("add_generation_prompt", Support.SERVED, "request.prompt", endpoints=_CHAT),
    Row("tools", Support.SERVED, "prompt.tools", endpoints=_CHAT),
    Row("tool_choice", Support.SERVED, "prompt.tool_choice", endpoints=_CHAT),
    Row("parallel_tool_calls", Support.SERVED, "prompt.parallel_tool_calls", endpoints=_CHAT),
    Row("functions", Support.SERVED, "prompt.tools: the form before tools", endpoints=_CHAT),
    Row("function_call", Support.SERVED, "prompt.tool_choice: the form before tool_choice", endpoints=_CHAT),
    Row("reasoning_effort", Support.SERVED, "prompt.thinking", endpoints=_CHAT),
    Row("enable_thinking", Support.SERVED, "prompt.thinking", endpoints=_CHAT),
    Row("chat_template_kwargs", Support.SERVED, "prompt.template_kwargs", endpoints=_CHAT),
)

_HARMLESS = (
    Row("user", Support.HARMLESS, "names the client's own user", is_passed_on=True),
    Row("safety_identifier", Support.HARMLESS, "names the client's own user", is_passed_on=True),
    Row("metadata", Support.HARMLESS, "labels for the provider's records", is_passed_on=True),
    Row("store", Support.HARMLESS, "asks the provider to keep the answer", is_passed_on=True),
    Row("service_tier", Support.HARMLESS, "chooses a price", is_passed_on=True),
    Row("prompt_cache_key", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True),
    Row("prompt_cache_options", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True),
    Row("prompt_cache_retention", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True),
    Row("cache_prompt", Support.HARMLESS, "prefixes are always cached"),
    Row("prediction", Support.HARMLESS, "only speeds an answer up", is_passed_on=True),
    Row("draft_model", Support.HARMLESS, "only speeds an answer up"),
    Row("num_draft_tokens", Support.HARMLESS, "only speeds an answer up"),
    Row("request_id", Support.HARMLESS, "send the header X-Request-Id instead"),
    Row("keep_alive", Support.HARMLESS, "says how long to keep the model in memory"),
    Row("verbosity", Support.IGNORED, "a hint to models trained on it", is_passed_on=True, endpoints=_CHAT),
)

_OTHER_CONSTRAINT = "Send response_format, guided_json, guided_regex or guided_grammar instead."
_NO_SAMPLER = "That sampler is not served: leave it out; temperature, top_p, top_k and min_p are."
_TEXT_ONLY = "Answers are text only: leave it out."
_FIXED_TEMPLATE = "The model's own chat template is used as it is: leave it out."

_REFUSED = (
    Row("guided_choice", Support.REFUSED, _OTHER_CONSTRAINT),
    Row("structured_outputs", Support.REFUSED, _OTHER_CONSTRAINT),
    Row("json_schema", Support.REFUSED, _OTHER_CONSTRAINT),
    Row("grammar", Support.REFUSED, _OTHER_CONSTRAINT, ("",)),
    Row("audio", Support.REFUSED, _TEXT_ONLY, endpoints=_CHAT),
    Row("modalities", Support.REFUSED, _TEXT_ONLY, (["text"], []), endpoints=_CHAT),
    Row("web_search_options", Support.REFUSED, "The web is not searched: leave it out.", endpoints=_CHAT),
    Row("moderation", Support.REFUSED, "Nothing is moderated here: leave it out.", endpoints=_CHAT),
    Row("documents", Support.REFUSED, "Put the documents into a message.", ([],), endpoints=_CHAT),
    Row("chat_template", Support.REFUSED, _FIXED_TEMPLATE, endpoints=_CHAT),
    Row("echo", Support.REFUSED, "Echo is served on /v1/completions only: leave it out.", (False,), endpoints=_CHAT),
    Row("add_special_tokens", Support.REFUSED, _FIXED_TEMPLATE, (False,), endpoints=_CHAT),
    Row(
        "add_special_tokens", Support.REFUSED, "Send token ids as the prompt instead.", (True,), endpoints=_COMPLETIONS
    ),
    Row(
        "suffix",
        Support.REFUSED,
        "Text is not inserted between two others: leave it out.",
        ("",),
        endpoints=_COMPLETIONS,
    ),
    Row("best_of", Support.REFUSED, "Ask for n choices and pick the best of them.", (1,)),
    Row("use_beam_search", Support.REFUSED, "Beam search is not served: leave it out.", (False,)),
    Row("length_penalty", Support.REFUSED, "Beam search is not served: leave it out.", (1,)),
    Row("repeat_penalty", Support.REFUSED, "It is called repetition_penalty here.", (1,)),
    Row("repetition_context_size", Support.REFUSED, "repetition_penalty looks at all tokens: leave it out."),
    Row("min_tokens", Support.REFUSED, "A least length is not served; see ignore_eos.", (0,)),
    Row("stop_token_ids", Support.REFUSED, "Send the text of these tokens as stop.", ([],)),
    Row("include_stop_str_in_output", Support.REFUSED, "Stop strings are never in the answer.", (False,)),
    Row("bad_words", Support.REFUSED, "Give their tokens a logit_bias of -100.", ([],)),
    Row("skip_special_tokens", Support.REFUSED, "Special tokens are never in the answer.", (True,)),
    Row("truncate_prompt_tokens", Support.REFUSED, "Prompts are not cut: send a shorter one."),
    Row("prompt_logprobs", Support.REFUSED, "Log-probabilities of the prompt are not served: leave it out."),
    Row("typical_p", Support.REFUSED, _NO_SAMPLER, (1,)),
    Row("top_a", Support.REFUSED, _NO_SAMPLER, (0,)),
    Row("tfs_z", Support.REFUSED, _NO_SAMPLER, (1,)),
    Row("mirostat", Support.REFUSED, _NO_SAMPLER, (0,)),
    Row("dry_multiplier", Support.REFUSED, _NO_SAMPLER, (0,)),
    Row("xtc_probability", Support.REFUSED, _NO_SAMPLER, (0,)),
    Row("logits_processors", Support.REFUSED, _NO_SAMPLER, ([],)),
    Row("adapters", Support.REFUSED, "Adapters are not served yet: leave it out."),
    Row("thinking_budget", Support.REFUSED, "Thinking is not bounded; see enable_thinking.", endpoints=_CHAT),
    Row("images", Support.REFUSED, "Put images into a message, as parts of type image_url.", ([],)),
)

PARAMETERS: tuple[Row, ...] = _SERVED + _HARMLESS + _REFUSED


def screen(endpoint: Endpoint, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Judge the parameters of a request that its wire schema does not serve.

    Returns the names of those ignored, which the answer's header is to carry. Raises `UnsupportedParameter`.
    """
    return screen_rows(_ROWS[endpoint], parameters)


def passed_on(endpoint: Endpoint, parameters: Mapping[str, Any]) -> PassedOn:
    """The parameters among these that a provider of the same dialect is told."""
    return passed_on_of(endpoint.value, _ROWS[endpoint], parameters)


_ROWS: Mapping[Endpoint, Mapping[str, Row]] = MappingProxyType(
    {
        endpoint: MappingProxyType({row.name: row for row in PARAMETERS if endpoint in row.endpoints})
        for endpoint in Endpoint
    }
)
