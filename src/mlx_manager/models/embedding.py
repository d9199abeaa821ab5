"""An embedding model: texts to tokens with the model's own prompts, tokens to vectors with its own pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ContextLengthExceeded, InvalidRequest
from mlx_manager.ir import EmbeddingRequest, TextRole
from mlx_manager.models.encoder import Item, LoadedEncoder, load_encoder, read_json
from mlx_manager.models.encoding import TextEncoder
from mlx_manager.models.loading import Report
from mlx_manager.models.pooling import Pooling, read_pooling

_PROMPT_NAMES = {
    TextRole.QUERY: ("query", "search_query", "retrieval.query"),
    TextRole.DOCUMENT: ("document", "passage", "search_document", "corpus", "retrieval.passage"),
}
"""What models call their prompts in config_sentence_transformers.json."""


@dataclass(frozen=True)
class Prompt:
    """What stands before a text. `num_unpooled` of its tokens are left out of the pooling."""

    text: str = ""
    num_unpooled: int = 0


class Embedder:
    """Turns the inputs of requests into items, and items into vectors. Everything runs on the caller's thread."""

    def __init__(self, encoder: LoadedEncoder) -> None:
        self.encoder = encoder
        self.pooling: Pooling = read_pooling(encoder)
        written = read_json(encoder.folder / "sentence_bert_config.json")
        own = (written.get("max_seq_length"), encoder.tokenizer.model_max_length)
        self.max_tokens = min([encoder.max_tokens, *(int(limit) for limit in own if limit)])
        """Longest input, in tokens with those that the tokenizer adds."""
        self._text_encoder = TextEncoder(encoder.tokenizer)
        self._is_lower_case = bool(written.get("do_lower_case"))
        self._prompts, self._default_prompt = self._read_prompts()
        probe, mask = encoder.hidden_states([Item((0,))])
        self.num_dimensions = int(self.pooling(probe, mask, mask).shape[-1])

    @classmethod
    def load(cls, entry: ModelEntry, options: LoadOptions, report: Report) -> Embedder:
        """Load the model folder. Raises `ModelLoadFailed`."""
        return cls(load_encoder(entry, options, report))

    def describe(self) -> str:
        """How vectors come about, for the report of the load."""
        return f"{self.num_dimensions} dimensions, {self.pooling.describe()}"

    def check(self, request: EmbeddingRequest) -> None:
        """Raises `InvalidRequest` for what is wrong whatever the inputs are."""
        if request.dimensions is not None and request.dimensions > self.num_dimensions:
            raise InvalidRequest(
                f"dimensions cannot be {request.dimensions}: vectors of this model have {self.num_dimensions}.",
                param="dimensions",
            )

    def num_inputs(self, request: EmbeddingRequest) -> int:
        """How many items the request has."""
        return len(request.inputs)

    def tokenize(self, request: EmbeddingRequest, start: int, stop: int) -> list[Item]:
        """The items of `request.inputs[start:stop]`. Raises `InvalidRequest`."""
        inputs = request.inputs[start:stop]
        prompt = self._default_prompt if request.role is None else self._prompts[request.role]
        texts = [
            self._bounded(prompt.text + text, index, request)
            for index, text in enumerate(inputs, start)
            if isinstance(text, str)
        ]
        if self._is_lower_case:
            texts = [text.lower() for text in texts]
        tokenized = iter(self._tokenize(texts, request, prompt))
        items = []
        for index, given in enumerate(inputs, start):
            item = next(tokenized) if isinstance(given, str) else self._take(given, index, request)
            if len(item.token_ids) > self.max_tokens:
                raise too_long(f"input[{index}]", len(item.token_ids), self.max_tokens, param="input")
            if not item.token_ids:
                raise InvalidRequest(f"input[{index}] holds no tokens: leave it out.", param="input")
            items.append(item)
        return items

    def compute(self, items: Sequence[Item]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector for each item [N, D], in one pass."""
        hidden, mask = self.encoder.hidden_states(items)
        pooled = mask
        if any(item.num_unpooled for item in items):
            first = mx.array([[item.num_unpooled] for item in items])
            pooled = mask * (mx.arange(mask.shape[1])[None] >= first)
        return np.array(self.pooling(hidden, mask, pooled))

    def finish(
        self, request: EmbeddingRequest, vectors: np.ndarray[Any, np.dtype[np.float32]]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vectors as the request wants them: cut to its dimensions, and then of length one again if they were."""
        if request.dimensions is None or request.dimensions == self.num_dimensions:
            return vectors
        cut = vectors[:, : request.dimensions]
        if not self.pooling.normalizes:
            return cut
        lengths = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.asarray(cut / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _bounded(self, text: str, index: int, request: EmbeddingRequest) -> str:
        what = None if request.truncate else f"input[{index}]"
        return bounded(self._text_encoder, text, self.max_tokens, what, param="input")

    def _tokenize(self, texts: list[str], request: EmbeddingRequest, prompt: Prompt) -> list[Item]:
        if not texts:
            return []
        limits = {"truncation": True, "max_length": self.max_tokens} if request.truncate else {}
        encoded = self.encoder.tokenizer(texts, return_attention_mask=False, verbose=False, **limits)
        return [Item(token_ids, num_unpooled=prompt.num_unpooled) for token_ids in encoded["input_ids"]]

    def _take(self, token_ids: tuple[int, ...], index: int, request: EmbeddingRequest) -> Item:
        largest = max(token_ids, default=0)
        if largest >= self.encoder.vocabulary_size:
            raise InvalidRequest(
                f"input[{index}] has the token {largest}; the vocabulary of this model has "
                f"{self.encoder.vocabulary_size}. Send text, or tokens of this model's own tokenizer.",
                param="input",
            )
        return Item(token_ids[: self.max_tokens] if request.truncate else token_ids)

    def _read_prompts(self) -> tuple[Mapping[TextRole, Prompt], Prompt]:
        written = read_json(self.encoder.folder / "config_sentence_transformers.json")
        prompts = written.get("prompts")
        prompts = prompts if isinstance(prompts, dict) else {}

        def prompt(*names: str) -> Prompt:
            text = next((str(prompts[name]) for name in names if prompts.get(name)), "")
            return Prompt(text, self._num_unpooled(text))

        default = written.get("default_prompt_name")
        return {role: prompt(*names) for role, names in _PROMPT_NAMES.items()}, prompt(*([default] if default else []))

    def _num_unpooled(self, text: str) -> int:
        """The prompt's tokens, without what the tokenizer puts at the end, where pooling leaves prompts out."""
        if not text or self.pooling.includes_prompt:
            return 0
        tokenizer = self.encoder.tokenizer
        token_ids = tokenizer(text, verbose=False)["input_ids"]
        return len(token_ids) - (token_ids[-1] in tokenizer.all_special_ids)


def bounded(encoder: TextEncoder, text: str, max_tokens: int, what: str | None, *, param: str) -> str:
    """As much of `text` as can matter to a model that takes `max_tokens`.

    Raises `ContextLengthExceeded` where that is not all, and says `what` it is that is too long, if there is a word.
    """
    head = encoder.head(text, max_tokens)
    if what is not None and len(head) < len(text):
        raise too_long(what, f"more than {max_tokens}", max_tokens, param=param)
    return head


def too_long(what: str, num_tokens: int | str, max_tokens: int, *, param: str) -> ContextLengthExceeded:
    """The error about an input that the model's positions do not hold."""
    return ContextLengthExceeded(
        f"{what} has {num_tokens} tokens, and this model takes {max_tokens}: send less, or truncate: true to have the "
        "rest cut off.",
        param=param,
    )
