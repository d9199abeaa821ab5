"""The backend that answers through a provider that speaks OpenAI's dialect."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from mlx_manager.backends.cloud import CloudBackend
from mlx_manager.catalog import ProviderKind
from mlx_manager.errors import ProviderFailed, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    EmbeddingRequest,
    GenerationRequest,
    Message,
    RerankRequest,
    Role,
    TextContent,
    Thinking,
    Vectors,
)
from mlx_manager.protocols.openai.client_request import render_request
from mlx_manager.protocols.openai.client_stream import ChunkDecoder

_EFFORTS = (("low", 4096), ("medium", 16384))
"""For budgets of thinking below so many tokens."""


class OpenAIBackend(CloudBackend):
    """Asks for chats and raw completions, and for vectors."""

    @property
    def own_dialects(self) -> tuple[str, ...]:  # type: ignore[override]
        """Open servers are told what was said in the same words; those of /v1/responses are OpenAI's own."""
        return ("chat", "completions") if self.kind is ProviderKind.COMPATIBLE else ("chat", "completions", "responses")

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def _render(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        is_extended = self.kind is ProviderKind.COMPATIBLE
        return render_request(_as_taken(request, is_extended=is_extended), is_extended=is_extended, provider=self.name)

    def _decoder(self, request: GenerationRequest) -> ChunkDecoder:
        return ChunkDecoder(request)

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The vectors of `request`; nobody ranks documents in this dialect."""
        if isinstance(request, RerankRequest):
            raise UnsupportedParameter(f"{self.name} ranks no documents.", param="model")
        if request.role is not None or request.truncate:
            param = "truncate" if request.truncate else "input_type"
            raise UnsupportedParameter(f"{self.name} does not know {param}: leave it out.", param=param)
        body: dict[str, Any] = {
            "model": request.model,
            "input": [text if isinstance(text, str) else list(text) for text in request.inputs],
            "encoding_format": "base64",
        }
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        answer = await self._upstream.post("embeddings", body)
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = [_floats(row["embedding"]) for row in rows]
            num_tokens = int(answer["usage"]["prompt_tokens"])
            num_dimensions = len(vectors[0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProviderFailed(f"{self.name} sent vectors in another form than OpenAI's ({error!r}).") from None
        if len(vectors) != len(request.inputs) or any(len(row) != num_dimensions for row in vectors):
            raise ProviderFailed(f"{self.name} did not send one vector for each input.")
        return Vectors(
            num_dimensions=num_dimensions,
            values=b"".join(row.tobytes() for row in vectors),
            num_prompt_tokens=num_tokens,
        )


def _as_taken(request: GenerationRequest, *, is_extended: bool) -> GenerationRequest:
    if not isinstance(request.prompt, ChatPrompt):
        return request
    prompt = request.prompt
    thinking = replace(prompt.thinking, effort=_effort_of(prompt.thinking, is_extended=is_extended))
    return replace(request, prompt=replace(prompt, messages=_with_results_as_texts(prompt.messages), thinking=thinking))


def _effort_of(thinking: Thinking, *, is_extended: bool) -> str | None:
    """The dialect bounds no thinking: a budget is told as the effort that comes nearest."""
    budget = thinking.budget_tokens
    if thinking.effort is None and thinking.is_enabled and budget is not None:
        return next((effort for effort, most in _EFFORTS if budget < most), "high")
    return "xhigh" if thinking.effort == "max" and not is_extended else thinking.effort


def _with_results_as_texts(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Results of tools are texts in this dialect: what else they show follows behind all of them, said by the user."""
    taken: list[Message] = []
    shown: list[Content] = []
    for message in messages:
        if message.role is Role.TOOL:
            texts = tuple(piece for piece in message.content if isinstance(piece, TextContent))
            others = [piece for piece in message.content if not isinstance(piece, TextContent)]
            if others:
                shown += [TextContent(f"The tool call {message.tool_call_id} showed:"), *others]
                texts = texts or (TextContent("Shown in the next message."),)
            taken.append(replace(message, content=texts))
        elif shown and message.role is Role.USER:
            taken.append(replace(message, content=(*shown, *message.content)))
            shown = []
        else:
            taken += [*_said_by_user(shown), message]
            shown = []
    return (*taken, *_said_by_user(shown))


def _said_by_user(content: Sequence[Content]) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=tuple(content)),) if content else ()


def _floats(embedding: str | list[float]) -> array[float]:
    if isinstance(embedding, str):
        return array("f", base64.b64decode(embedding))
    return array("f", embedding)
