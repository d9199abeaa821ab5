"""A request for generated tokens, as every dialect is parsed into it and as it crosses to the worker."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """The result of a tool call."""


class Priority(StrEnum):
    """How urgent a request is; see `engine.queue` for what it means while requests wait."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class TextContent(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text in a message.

    `cache_ttl`, here and elsewhere: how long the client wants the prompt up to here kept in a provider's cache, such as
    5m; None where it does not say. Here prefixes are cached whether it does or not.
    """

    text: str
    cache_ttl: str | None = None


class ImageContent(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """A picture in a message: the bytes of its encoded file, or the address that they are to be fetched from."""

    data: bytes = b""
    """The encoded file as it was sent; empty where only `url` is known."""
    url: str = ""
    """An https address, while nobody has fetched it."""
    media_type: str = ""
    """As the client says, such as image/png; a decoder looks at the bytes instead."""
    detail: str | None = None
    """How closely to look, in OpenAI's words: auto, low, high."""
    cache_ttl: str | None = None


class VideoContent(msgspec.Struct, frozen=True, kw_only=True, tag="video"):
    """A video in a message: the bytes of its file, the address that they are to be fetched from, or its frames."""

    data: bytes = b""
    """The file as it was sent; empty where only `url` or the frames are known."""
    url: str = ""
    """An https address, while nobody has fetched it."""
    media_type: str = ""
    """As the client says, such as video/mp4; a decoder looks at the bytes instead."""
    frames: tuple[ImageContent, ...] = ()
    """What the client cut it into itself, in order."""


class DocumentContent(msgspec.Struct, frozen=True, kw_only=True, tag="document"):
    """A PDF in a message. A model here never gets one: its text takes its place."""

    data: bytes = b""
    """The file as it was sent; empty where only its address is known."""
    url: str = ""
    """Its https address, as long as it has not been fetched."""
    name: str = ""
    """Its title or the name of its file."""
    cache_ttl: str | None = None


Content = TextContent | ImageContent | VideoContent | DocumentContent
"""One piece of a message."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the assistant made. `arguments` is the text of a JSON object."""

    call_id: str
    name: str
    arguments: str
    cache_ttl: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Role
    content: tuple[Content, ...] = ()
    name: str | None = None
    reasoning: str = ""
    """What an assistant thought before its text, given back by the client."""
    reasoning_signature: str = ""
    """What proves `reasoning` to the provider that it came from; empty for a model here."""
    tool_calls: tuple[ToolCall, ...] = ()
    """An assistant's, after its text."""
    tool_call_id: str | None = None
    """Of a tool's message: which call it answers."""
    is_error: bool = False
    """Of a tool's message: the call failed, and the content says how."""
    cache_ttl: str | None = None
    """Of a tool's message; of others their content has it."""

    @property
    def text(self) -> str:
        """All text of the message, its pieces joined by line breaks."""
        return "\n".join(piece.text for piece in self.content if isinstance(piece, TextContent))

    @property
    def images(self) -> tuple[ImageContent, ...]:
        """All pictures of the message, in order."""
        return tuple(piece for piece in self.content if isinstance(piece, ImageContent))

    @property
    def visuals(self) -> tuple[ImageContent | VideoContent, ...]:
        """All pictures and videos of the message, in order."""
        return tuple(piece for piece in self.content if isinstance(piece, ImageContent | VideoContent))

    @property
    def documents(self) -> tuple[DocumentContent, ...]:
        """All documents of the message that are files, in order."""
        return tuple(piece for piece in self.content if isinstance(piece, DocumentContent))


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. `parameters` is the text of a JSON schema of its arguments object."""

    name: str
    description: str = ""
    parameters: str = '{"type": "object", "properties": {}}'
    strict: bool = False
    """Whether every call of it must match `parameters`, enforced token by token."""
    is_deferred: bool = False
    """A message of the conversation describes it, and so the beginning of the prompt does not."""
    cache_ttl: str | None = None


class ToolChoiceMode(StrEnum):
    """Whether the answer calls tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the answer calls tools, and which: those in `names`, or any of them when it is empty."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    names: tuple[str, ...] = ()


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """How the model is to think before it answers. `None` leaves it to the model's own default."""

    is_enabled: bool | None = None
    effort: str | None = None
    """In words that the model's template knows: low, medium, high. With `none` thinking is not enabled."""
    is_adaptive: bool = False
    """The client asks for as much as the model itself holds right, in so many words. Here that is its own default."""
    budget_tokens: int | None = None
    """Tokens after which thinking is ended; None: it may go on as long as the answer."""


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """A conversation, to be rendered with the model's own chat template.

    With `continue_final_message` the last message is an assistant's beginning that the model goes on with.
    """

    messages: tuple[Message, ...]
    continue_final_message: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    """Whether one answer may hold several calls."""
    thinking: Thinking = Thinking()
    template_kwargs: dict[str, Any] = {}
    """Further variables of the chat template, as JSON values."""
    cache_ttl: str | None = None
    """Of all of it, for providers that choose themselves what of it to keep."""


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A raw text, tokenized as it is."""

    text: str


class TokenPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """A prompt the client tokenized itself."""

    token_ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class GrammarKind(StrEnum):
    """In which language a grammar is written."""

    JSON_OBJECT = "json_object"
    """Any JSON object; there is no text."""
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole answer has to match, token by token."""

    kind: GrammarKind
    param: str
    """The field of the request that it came in, for errors about it."""
    text: str = ""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose tokens. `None`: the client said nothing, and the model's own default holds, then the server's.

    The one declaration of the sampling parameters; the HTTP faces bound their values, the worker fills the defaults in.
    """

    max_tokens: int | None = None
    fits_context: bool = False
    """Lower `max_tokens` to what the context has room for, instead of refusing a request that asks for more."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """Keep the k likeliest tokens; 0 keeps all."""
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    """Divides (positive) or multiplies (negative) the logit of each token of the prompt or the output; 1 is none."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    grammar: Grammar | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    """Go on after an end-of-sequence token (benchmarks)."""
    logprobs: bool = False
    """Report the log-probability of each chosen token."""
    top_logprobs: int = 0
    """How many alternatives to report beside each chosen token, 0 to 20."""


class PassedOn(msgspec.Struct, frozen=True, kw_only=True):
    """What the client sent that means nothing to a model here, for a provider that is asked in the client's dialect."""

    dialect: str = ""
    """chat, completions, responses or messages."""
    fields: dict[str, Any] = {}
    """By name, as they were sent."""
    betas: tuple[str, ...] = ()
    """Of the header anthropic-beta."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt and what is wanted of it; answered by a stream of `ir.Event`."""

    request_id: str
    model: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    num_choices: int = 1
    priority: Priority = Priority.NORMAL
    echo: bool = False
    """Begin the answer with the prompt's own text (completions only)."""
    cache_salt: str = ""
    """Prefixes are shared with requests of the same salt only. Set by the gateway."""
    passed_on: PassedOn = PassedOn()
    """Never crosses to a worker."""
