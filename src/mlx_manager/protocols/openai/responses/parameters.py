"""What POST /v1/responses does with every parameter that clients send, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mlx_manager.protocols.parameters import Parameter, Support

_OTHER_FORM = "Send text.format instead."
_NOT_THERE = "This server has none: leave it out."
_NO_SAMPLER = "That sampler is not served: leave it out; temperature, top_p, top_k and min_p are."

RESPONSE_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        row.name: row
        for row in (
            Parameter("model", Support.SERVED, "request.model"),
            Parameter("input", Support.SERVED, "prompt.messages: a text, or items"),
            Parameter("instructions", Support.SERVED, "prompt.messages: a system message before all others"),
            Parameter("previous_response_id", Support.SERVED, "prompt.messages: those of a stored response go before"),
            Parameter("store", Support.SERVED, "whether the answer can be asked for later; true by default"),
            Parameter("tools", Support.SERVED, "prompt.tools: functions, and namespaces of functions"),
            Parameter("tool_choice", Support.SERVED, "prompt.tool_choice"),
            Parameter("parallel_tool_calls", Support.SERVED, "prompt.parallel_tool_calls"),
            Parameter(
                "text", Support.SERVED, "text.format: sampling.grammar; text.verbosity is a hint without effect here"
            ),
            Parameter("reasoning", Support.SERVED, "effort: prompt.thinking; summary: the form of the answer"),
            Parameter("enable_thinking", Support.SERVED, "prompt.thinking"),
            Parameter("chat_template_kwargs", Support.SERVED, "prompt.template_kwargs"),
            Parameter("include", Support.SERVED, "reasoning.encrypted_content, message.output_text.logprobs"),
            Parameter("max_output_tokens", Support.SERVED, "sampling.max_tokens"),
            Parameter("temperature", Support.SERVED, "sampling.temperature"),
            Parameter("top_p", Support.SERVED, "sampling.top_p"),
            Parameter("top_k", Support.SERVED, "sampling.top_k"),
            Parameter("min_p", Support.SERVED, "sampling.min_p"),
            Parameter("seed", Support.SERVED, "sampling.seed"),
            Parameter("repetition_penalty", Support.SERVED, "sampling.repetition_penalty"),
            Parameter("presence_penalty", Support.SERVED, "sampling.presence_penalty"),
            Parameter("frequency_penalty", Support.SERVED, "sampling.frequency_penalty"),
            Parameter("logit_bias", Support.SERVED, "sampling.logit_bias"),
            Parameter("stop", Support.SERVED, "sampling.stop"),
            Parameter("ignore_eos", Support.SERVED, "sampling.ignore_eos"),
            Parameter("top_logprobs", Support.SERVED, "sampling.top_logprobs"),
            Parameter("priority", Support.SERVED, "request.priority"),
            Parameter("stream", Support.SERVED, "the form of the answer"),
            Parameter("metadata", Support.SERVED, "kept with the answer, and said back"),
            Parameter(
                "truncation",
                Support.SERVED,
                "with auto, the oldest turns are left out where the conversation does not fit",
            ),
            Parameter("background", Support.SERVED, "whether the answer is made without anyone waiting for it"),
            Parameter("user", Support.HARMLESS, "names the client's own user", is_passed_on=True),
            Parameter("safety_identifier", Support.HARMLESS, "names the client's own user", is_passed_on=True),
            Parameter("client_metadata", Support.HARMLESS, "labels for the provider's records"),
            Parameter("service_tier", Support.HARMLESS, "chooses a price", is_passed_on=True),
            Parameter("prompt_cache_key", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True),
            Parameter(
                "prompt_cache_options", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True
            ),
            Parameter(
                "prompt_cache_retention", Support.HARMLESS, "prefixes are found by their content", is_passed_on=True
            ),
            Parameter("stream_options", Support.HARMLESS, "asks for padding against listeners on the line"),
            Parameter("max_tool_calls", Support.HARMLESS, "bounds calls that the provider runs; none are"),
            Parameter("keep_alive", Support.HARMLESS, "says how long to keep the model in memory"),
            Parameter("context_management", Support.IGNORED, "asks for conversations to be compacted"),
            Parameter("conversation", Support.REFUSED, "Send previous_response_id, or the items themselves."),
            Parameter("prompt", Support.REFUSED, "There are no stored prompts: send instructions and input."),
            Parameter("moderation", Support.REFUSED, "Nothing is moderated here: leave it out."),
            Parameter("n", Support.REFUSED, "A response is one choice: send the request again.", (1,)),
            Parameter("messages", Support.REFUSED, "They are called input here."),
            Parameter("max_tokens", Support.REFUSED, "It is called max_output_tokens here."),
            Parameter("max_completion_tokens", Support.REFUSED, "It is called max_output_tokens here."),
            Parameter("reasoning_effort", Support.REFUSED, "Send reasoning: {effort: …}."),
            Parameter("response_format", Support.REFUSED, _OTHER_FORM, ({"type": "text"},)),
            Parameter("guided_json", Support.REFUSED, _OTHER_FORM),
            Parameter("guided_regex", Support.REFUSED, "It is served on /v1/chat/completions only."),
            Parameter("guided_grammar", Support.REFUSED, "It is served on /v1/chat/completions only."),
            Parameter("functions", Support.REFUSED, "Send tools."),
            Parameter("function_call", Support.REFUSED, "Send tool_choice."),
            Parameter("best_of", Support.REFUSED, "A response is one choice: send the request again.", (1,)),
            Parameter("adapters", Support.REFUSED, _NOT_THERE),
            Parameter("typical_p", Support.REFUSED, _NO_SAMPLER, (1,)),
            Parameter("mirostat", Support.REFUSED, _NO_SAMPLER, (0,)),
        )
    }
)
"""By name. A parameter that is not here is unknown: accepted, and named in the answer's header."""
