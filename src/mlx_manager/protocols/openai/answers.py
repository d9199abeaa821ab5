"""The wire schemas of answers in the OpenAI dialect, as msgspec structs, to encode and to decode: once per token.

Other servers leave out, or send as null, much of what is sent from here: such fields have defaults.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mlx_manager.errors import MlxManagerError


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: ErrorObject


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """Where the prompt's tokens came from."""

    cached_tokens: int | None = None


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """What the answer's tokens were used for."""

    reasoning_tokens: int | None = None


class UsageObject(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer cost."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    cost: Any = msgspec.UNSET
    """In US dollars, as OpenRouter says it; from here never."""


class TopLogprobObject(msgspec.Struct, frozen=True):
    """An alternative token."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprobObject(msgspec.Struct, frozen=True):
    """A chosen token."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprobObject] = []


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of the tokens of a chat answer."""

    content: list[TokenLogprobObject] | None = None
    refusal: list[TokenLogprobObject] | None = None


class FunctionObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which function to call with what. In a chunk, what it adds to the text of the arguments."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """From here always a text; some other servers send the object."""


class ToolCallObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call, or what a chunk adds to the call at `index`; its first chunk has its id, type and name."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionObject | None = None


class ContentPartObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a text that some other servers send in parts."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    thinking: str | list[ContentPartObject] | None = None
    """What was thought, in a part of that type."""


class ChatMessageObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The assistant's message, or with everything optional, what a chunk adds to it."""

    role: str | None = None
    content: str | list[ContentPartObject] | msgspec.UnsetType | None = msgspec.UNSET
    """From here always a text."""
    reasoning_content: str | None = None
    reasoning: str | None = None
    """What some other servers call `reasoning_content`."""
    tool_calls: list[ToolCallObject] | None = None
    function_call: FunctionObject | None = None
    """The form before `tool_calls`, for requests in that form."""
    refusal: str | msgspec.UnsetType | None = msgspec.UNSET


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One complete choice."""

    index: int
    message: ChatMessageObject
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds to one choice."""

    index: int = 0
    delta: ChatMessageObject | None = None
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """Log-probabilities in the older form, as parallel lists. `text_offset` counts characters of the choice's text."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    """Null for the first token of a prompt that is told again."""
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a completion, complete or what a chunk adds."""

    index: int = 0
    text: str | None = None
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer, or one chunk of it; `usage` is absent in the chunks of a stream that did not ask for it."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice] | list[ChatChunkChoice] | list[CompletionChoice]
    usage: UsageObject | msgspec.UnsetType | None = msgspec.UNSET


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a chunk of somebody else's chat answer; `error` is what it breaks off with."""

    id: Any = None
    """For people: what it is does not matter. So it is with the model."""
    model: Any = None
    choices: list[ChatChunkChoice] | None = None
    usage: UsageObject | None = None
    error: dict[str, Any] | str | None = None


class CompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The same of a completion."""

    id: Any = None
    """For people: what it is does not matter. So it is with the model."""
    model: Any = None
    choices: list[CompletionChoice] | None = None
    usage: UsageObject | None = None
    error: dict[str, Any] | str | None = None


class ServingObject(msgspec.Struct, frozen=True, kw_only=True):
    """How a loaded model is served."""

    path: str
    reason: str
    attention: str
    dtype: str
    kv_cache_bits: int = 0
    """Of an entry of its keys and values; 0: they are kept as they are computed."""
    kv_bytes_per_token: int = 0
    family: str = ""
    """Which family's way of prompting and reading holds; "" for a model that does not chat."""
    warning: str = ""
    """What is not known about the model."""
    draft_model: str = ""
    """The model that guesses ahead for it; "" where there is none."""


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """One model of GET /v1/models; everything after `owned_by` is this server's addition."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "mlx-manager"
    root: str
    """The model that an alias leads to; its own id otherwise."""
    aliases: tuple[str, ...] = ()
    kind: str
    """That of a model of this machine; route where others answer, too, of whom the rest is not known."""
    capabilities: tuple[str, ...] = ()
    """What it can be asked for: chat, completions, vision, embeddings, rerank, tools, thinking."""
    state: str
    architecture: str | None = None
    family: str | None = None
    """As its files tell; null for a model that does not chat. `serving` has what it is served as."""
    quantization: str | None = None
    size_bytes: int | None = None
    max_context: int | None = None
    """In tokens; null when the model does not say."""
    context_length: int | None = None
    """The same, under the name that many clients look for."""
    serving: ServingObject | None = None
    """Null until the model has been loaded."""
    targets: tuple[str, ...] = ()
    """Of a route: who is asked, in order, as backend/model."""


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /v1/models."""

    object: str = "list"
    data: list[ModelObject]


def error_body(error: MlxManagerError) -> ErrorBody:
    """An error of ours in the dialect's form."""
    return ErrorBody(
        ErrorObject(message=error.message, type=error_type(error.status), param=error.param, code=error.code)
    )


def error_type(status: int) -> str:
    """The dialect's `type` of an error with that HTTP status."""
    return _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def encode_json(answer: msgspec.Struct | dict[str, Any]) -> bytes:
    """Any of these structs as JSON."""
    return _encoder.encode(answer)


def encode_error(error: MlxManagerError) -> bytes:
    """An error's whole body as JSON."""
    return _encoder.encode(error_body(error))


_encoder = msgspec.json.Encoder()
