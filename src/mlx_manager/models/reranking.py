"""A reranker: a query and a document to one score between 0 and 1, by a head of the model or by its yes and no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from msgspec.structs import replace

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import InvalidRequest, ModelLoadFailed
from mlx_manager.ir import RerankRequest
from mlx_manager.models.embedding import bounded, too_long
from mlx_manager.models.encoder import Item, LoadedEncoder, load_encoder
from mlx_manager.models.encoding import TextEncoder
from mlx_manager.models.families.encoders import RankingPrompt, ranking_prompt
from mlx_manager.models.loading import Report

_Head = Callable[[mx.array, mx.array], mx.array]
"""(hidden states [B, L, D], mask [B, L]) → one logit per row [B]"""


class Reranker:
    """Turns the documents of requests into items, and items into scores. Everything runs on the caller's thread."""

    num_dimensions = 1

    def __init__(self, encoder: LoadedEncoder) -> None:
        self.encoder = encoder
        self.max_tokens = min(encoder.max_tokens, int(encoder.tokenizer.model_max_length or encoder.max_tokens))
        """Query, document and what joins them, in tokens."""
        self._text_encoder = TextEncoder(encoder.tokenizer)
        self._asks = _AsksInWords(encoder) if _has_no_head(encoder) else None
        self._head, self._head_name = (self._asks.head(), "yes or no") if self._asks else _find_head(encoder)

    @classmethod
    def load(cls, entry: ModelEntry, options: LoadOptions, report: Report) -> Reranker:
        """Load the model folder. Raises `ModelLoadFailed`."""
        return cls(load_encoder(entry, options, report))

    def describe(self) -> str:
        """How scores come about, for the report of the load."""
        return f"scores by {self._head_name}, between 0 and 1"

    def check(self, request: RerankRequest) -> None:
        """Raises `InvalidRequest` for what is wrong whatever the documents are."""
        if request.instruction is not None and self._asks is None:
            raise InvalidRequest("This model takes no instruction: leave it out.", param="instruction")

    def num_inputs(self, request: RerankRequest) -> int:
        """How many items the request has."""
        return len(request.documents)

    def tokenize(self, request: RerankRequest, start: int, stop: int) -> list[Item]:
        """The items of `request.documents[start:stop]`. Raises `InvalidRequest`."""
        request = replace(request, query=self._bounded(request.query, "the query", request))
        documents = [
            self._bounded(document, f"documents[{index}]", request)
            for index, document in enumerate(request.documents[start:stop], start)
        ]
        items = self._asks.items(request, documents, self.max_tokens) if self._asks else self._pairs(request, documents)
        for index, item in enumerate(items, start):
            if len(item.token_ids) > self.max_tokens:
                what = f"documents[{index}] with the query"
                raise too_long(what, len(item.token_ids), self.max_tokens, param="documents")
        return items

    def compute(self, items: Sequence[Item]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One score for each item [N, 1], in one pass."""
        hidden, mask = self.encoder.hidden_states(items)
        logits = self._head(hidden, mask)
        return np.array(mx.sigmoid(logits.astype(mx.float32)))[:, None]

    def finish(
        self, request: RerankRequest, vectors: np.ndarray[Any, np.dtype[np.float32]]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The scores as they are."""
        return vectors

    def _bounded(self, text: str, what: str, request: RerankRequest) -> str:
        return bounded(self._text_encoder, text, self.max_tokens, None if request.truncate else what, param="documents")

    def _pairs(self, request: RerankRequest, documents: list[str]) -> list[Item]:
        limits = {"truncation": "longest_first", "max_length": self.max_tokens} if request.truncate else {}
        encoded = self.encoder.tokenizer(
            [request.query] * len(documents),
            documents,
            return_attention_mask=False,
            return_token_type_ids=True,
            verbose=False,
            **limits,
        )
        return [
            Item(token_ids, segments)
            for token_ids, segments in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
        ]


class _AsksInWords:
    """A language model that is asked in words and answers with one of two tokens."""

    def __init__(self, encoder: LoadedEncoder) -> None:
        prompt = ranking_prompt(str(encoder.config.get("model_type")))
        if prompt is None:
            raise ModelLoadFailed("its files hold no head that scores, and how it is asked to rank is not known here")
        self._prompt: RankingPrompt = prompt
        self._encoder = encoder
        self._prefix, self._suffix = self._plain([prompt.prefix, prompt.suffix])

    def items(self, request: RerankRequest, documents: list[str], max_tokens: int) -> list[Item]:
        """The questions about `documents`; of a long one the end of the document is cut off where that is asked for."""
        instruction = request.instruction or self._prompt.default_instruction
        bodies = self._plain(
            [
                self._prompt.body.format(instruction=instruction, query=request.query, document=document)
                for document in documents
            ]
        )
        room = max_tokens - len(self._prefix) - len(self._suffix)
        if request.truncate:
            bodies = [body[:room] for body in bodies]
        return [Item([*self._prefix, *body, *self._suffix]) for body in bodies]

    def head(self) -> _Head:
        """The logit of yes less that of no: its sigmoid is the softmax of the two."""
        no, yes = self._plain([self._prompt.no, self._prompt.yes])
        if (len(no), len(yes)) != (1, 1):
            raise ModelLoadFailed("its tokenizer has no single tokens for yes and no")
        token_ids = mx.array([no[0], yes[0]])
        rows = self._rows(token_ids)
        direction = (rows[1] - rows[0]).astype(mx.float32)
        return lambda hidden, mask: _last(hidden, mask).astype(mx.float32) @ direction

    def _rows(self, token_ids: mx.array) -> mx.array:
        """What makes the logits of the two tokens: rows of the output matrix, or of the embedding it is tied to."""
        heads, encoder = self._encoder.heads, self._encoder
        weight = heads.get("lm_head.weight")
        if weight is None:
            rows: mx.array = encoder.model.model.embed_tokens(token_ids)
            return rows
        scales = heads.get("lm_head.scales")
        if scales is None:
            return weight[token_ids]
        quantization = encoder.config["quantization"]
        settings = {**quantization, **(quantization.get("lm_head") or {})}
        biases = heads.get("lm_head.biases")
        return mx.dequantize(
            weight[token_ids],
            scales[token_ids],
            None if biases is None else biases[token_ids],
            group_size=int(settings["group_size"]),
            bits=int(settings["bits"]),
            mode=str(settings.get("mode", "affine")),
        )

    def _plain(self, texts: list[str]) -> list[list[int]]:
        encoded = self._encoder.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(token_ids) for token_ids in encoded["input_ids"]]


def _has_no_head(encoder: LoadedEncoder) -> bool:
    return not any(name.startswith(("classifier.", "score.")) for name in encoder.heads)


def _find_head(encoder: LoadedEncoder) -> tuple[_Head, str]:
    """The head that the checkpoint's weights are of, and its name. Raises `ModelLoadFailed` for one with classes."""
    heads = {name: array.astype(mx.float32) for name, array in encoder.heads.items()}
    last = next(name for name in ("classifier.out_proj", "classifier", "score") if f"{name}.weight" in heads)
    num_labels = heads[f"{last}.weight"].shape[0]
    if num_labels != 1:
        raise ModelLoadFailed(f"it tells {num_labels} classes apart; a reranker has one score")

    def dense(name: str, values: mx.array) -> mx.array:
        product = values @ heads[f"{name}.weight"].T
        return product + heads[f"{name}.bias"] if f"{name}.bias" in heads else product

    def first(hidden: mx.array) -> mx.array:
        return hidden[:, 0].astype(mx.float32)

    if last == "score":
        return lambda hidden, mask: dense(last, _last(hidden, mask).astype(mx.float32))[
            :, 0
        ], "a head on the last token"
    if last == "classifier.out_proj":
        return (
            lambda hidden, mask: dense(last, mx.tanh(dense("classifier.dense", first(hidden))))[:, 0],
            "a head on the first token",
        )
    if "head.dense.weight" in heads:
        return _predicting(encoder, heads, dense), "a head on the pooled text"
    if not encoder.has_pooler:
        raise ModelLoadFailed("its files hold a classifier, and not the pooler that comes before it")
    pooler = encoder.model["pooler"]
    return lambda hidden, mask: dense(last, pooler(hidden).astype(mx.float32))[:, 0], "a head on the pooled first token"


def _predicting(
    encoder: LoadedEncoder, heads: dict[str, mx.array], dense: Callable[[str, mx.array], mx.array]
) -> _Head:
    """A dense layer, GELU and a norm before the classifier, on the first token or the mean."""
    takes_mean = encoder.config.get("classifier_pooling", "mean") == "mean"
    eps = float(encoder.config.get("norm_eps", 1e-5))

    def head(hidden: mx.array, mask: mx.array) -> mx.array:
        hidden = hidden.astype(mx.float32)
        weights = mask[..., None]
        mean = mx.where(weights > 0, hidden, 0.0).sum(axis=1) / weights.sum(axis=1)
        pooled = mean if takes_mean else hidden[:, 0]
        activated = nn.gelu(dense("head.dense", pooled))
        normed = mx.fast.layer_norm(activated, heads["head.norm.weight"], heads.get("head.norm.bias"), eps)
        return dense("classifier", normed)[:, 0]

    return head


def _last(hidden: mx.array, mask: mx.array) -> mx.array:
    """The hidden state of each row's last token [B, D]."""
    last = mask.sum(axis=1).astype(mx.int32) - 1
    return mx.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
