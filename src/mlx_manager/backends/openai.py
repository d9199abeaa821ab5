"""The backend that answers through a provider that speaks OpenAI's dialect."""

from __future__ import annotations

import base64
from array import array
from typing import Any

from mlx_manager.backends.cloud import CloudBackend
from mlx_manager.catalog import ProviderKind
from mlx_manager.errors import ProviderFailed, UnsupportedParameter
from mlx_manager.ir import EmbeddingRequest, GenerationRequest, RerankRequest, Vectors
from mlx_manager.protocols.openai.client_request import render_request
from mlx_manager.protocols.openai.client_stream import ChunkDecoder


class OpenAIBackend(CloudBackend):
    """Asks for chats and raw completions, and for vectors."""

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def _render(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        is_extended = self.kind is ProviderKind.COMPATIBLE
        return render_request(request, is_extended=is_extended, provider=self.name)

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


def _floats(embedding: str | list[float]) -> array[float]:
    if isinstance(embedding, str):
        return array("f", base64.b64decode(embedding))
    return array("f", embedding)
