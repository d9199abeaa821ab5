"""POST /tokenize and POST /detokenize: wire schemas to ir requests, and tokens to the bodies of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import DetokenizeRequest, TextPrompt, TokenizeRequest, Tokens
from mlx_manager.protocols.model_name import ModelName
from mlx_manager.protocols.openai.conversation import parse_conversation
from mlx_manager.protocols.openai.parameters import Endpoint, screen
from mlx_manager.protocols.openai.wire import ChatRequest, TokenId
from mlx_manager.protocols.wire import Wire, parse_wire


class TokenizeBody(Wire):
    """The body of POST /tokenize: a text as `prompt`, or `messages` with whatever a chat has that is in its prompt."""

    model: ModelName
    prompt: str | None = None
    messages: list[Any] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Wire):
    """The body of POST /detokenize."""

    model: ModelName
    tokens: list[TokenId]


class TokenizeObject(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the answer of POST /tokenize."""

    count: int
    max_model_len: int | None
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None


class DetokenizeObject(msgspec.Struct, frozen=True):
    """The body of the answer of POST /detokenize."""

    prompt: str


@dataclass(frozen=True)
class TokenizeCall:
    """A parsed request for tokens."""

    request: TokenizeRequest
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class DetokenizeCall:
    """A parsed request for the text of tokens."""

    request: DetokenizeRequest
    ignored: tuple[str, ...] = ()


def parse_tokenize(body: bytes, *, answer_id: str) -> TokenizeCall:
    """Read the body of POST /tokenize. Raises `InvalidRequest`."""
    wire = parse_wire(TokenizeBody, body)
    if (wire.prompt is None) == (wire.messages is None):
        raise InvalidRequest("prompt or messages is required, and not both: send one of them.", param="prompt")
    ignored: tuple[str, ...]
    if wire.messages is None:
        prompt, ignored = TextPrompt(text=wire.prompt or ""), tuple(wire.model_extra or {})
        request = TokenizeRequest(
            request_id=answer_id,
            model=wire.model,
            prompt=prompt,
            add_special_tokens=wire.add_special_tokens is not False,
            wants_token_texts=bool(wire.return_token_strs),
        )
        return TokenizeCall(request, ignored)
    chat = parse_wire(ChatRequest, body)
    own = ("add_special_tokens", "return_token_strs")
    extra = {name: value for name, value in (chat.model_extra or {}).items() if name not in own}
    ignored = screen(Endpoint.CHAT, extra)
    if wire.add_special_tokens:
        raise InvalidRequest(
            "add_special_tokens is for a prompt: a chat has those of the model's template. Leave it out.",
            param="add_special_tokens",
        )
    return TokenizeCall(
        TokenizeRequest(
            request_id=answer_id,
            model=wire.model,
            prompt=parse_conversation(chat),
            wants_token_texts=bool(wire.return_token_strs),
        ),
        ignored,
    )


def parse_detokenize(body: bytes, *, answer_id: str) -> DetokenizeCall:
    """Read the body of POST /detokenize. Raises `InvalidRequest`."""
    wire = parse_wire(DetokenizeBody, body)
    return DetokenizeCall(
        DetokenizeRequest(request_id=answer_id, model=wire.model, token_ids=tuple(wire.tokens)),
        tuple(wire.model_extra or {}),
    )


def render_tokenize(call: TokenizeCall, tokens: Tokens) -> TokenizeObject:
    """The body of the answer."""
    return TokenizeObject(
        count=len(tokens.token_ids),
        max_model_len=tokens.max_context,
        tokens=tokens.token_ids,
        token_strs=tokens.token_texts if call.request.wants_token_texts else None,
    )


def render_detokenize(call: DetokenizeCall, tokens: Tokens) -> DetokenizeObject:
    """The body of the answer."""
    return DetokenizeObject(tokens.text)
