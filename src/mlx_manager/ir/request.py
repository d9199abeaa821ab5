"""A request for generated tokens, as every dialect is parsed into it and as it crosses to the worker."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Priority(StrEnum):
    """How urgent a request is; see `engine.queue` for what it means while requests wait."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation. `text` joins the text parts that the dialect had."""

    role: Role
    text: str
    name: str | None = None


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """A conversation, to be rendered with the model's own chat template.

    With `continue_final_message` the last message is an assistant's beginning that the model goes on with.
    """

    messages: tuple[Message, ...]
    continue_final_message: bool = False


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
