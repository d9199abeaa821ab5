"""Which kind of model a folder holds, told from its files: one that generates text, sees, embeds or ranks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from mlx_manager.catalog import ModelKind

_MAX_CARD_CHARS = 65_536
_FRONT_MATTER = re.compile(r"\A\s*---\n(.*?)\n---", re.DOTALL)
_PIPELINE_TAG = re.compile(r"^pipeline_tag:\s*[\"']?([\w-]+)", re.MULTILINE)
_KINDS_BY_TASK = {
    "text-ranking": ModelKind.RERANKER,
    "feature-extraction": ModelKind.EMBEDDING,
    "sentence-similarity": ModelKind.EMBEDDING,
}
"""The hub's names of tasks, as model cards give them in `pipeline_tag`."""
_ENCODER = re.compile(r"(Model|ForMaskedLM)$")
_GENERATES = re.compile(r"(LMHead|Chat\w*)Model$")
"""Classes named like encoders that have a head to generate with: those of older models, and of those that chat."""
_RERANKER_NAME = re.compile(r"rerank", re.IGNORECASE)
_EMBEDDING_NAME = re.compile(r"(?<![a-z])embed(ding)?s?(?![a-z])", re.IGNORECASE)


def find_kind(folder: Path, name: str, config: Mapping[str, object]) -> ModelKind:
    """The kind of the model in `folder`.

    In this order: a head that classifies; sentence-transformers' files; an encoder without a head; what the model card
    says; the name, for conversions that lost all of these; an image tower with what prepares images for it.
    """
    architecture = _architecture(config)
    task = _card_task(folder)
    by_card = _KINDS_BY_TASK.get(task or "")
    if architecture.endswith("ForSequenceClassification") or by_card is ModelKind.RERANKER:
        return ModelKind.RERANKER
    if (folder / "modules.json").exists() or (folder / "1_Pooling").is_dir():
        return ModelKind.RERANKER if _is_cross_encoder(folder) else ModelKind.EMBEDDING
    sees = _can_see(folder, config)
    if _ENCODER.search(architecture) and not _GENERATES.search(architecture) and not sees:
        return ModelKind.EMBEDDING
    last_part = name.rsplit("/", 1)[-1]
    if by_card is None and _RERANKER_NAME.search(last_part):
        return ModelKind.RERANKER
    if by_card is ModelKind.EMBEDDING or _EMBEDDING_NAME.search(last_part):
        return ModelKind.EMBEDDING
    return ModelKind.VISION if sees else ModelKind.TEXT


def _can_see(folder: Path, config: Mapping[str, object]) -> bool:
    """Whether a folder has an image tower, and what images are prepared with: conversions of the text part have not."""
    if not isinstance(config.get("vision_config"), dict):
        return False
    return any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))


def _architecture(config: Mapping[str, object]) -> str:
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else ""


def _is_cross_encoder(folder: Path) -> bool:
    """Whether sentence-transformers' own file says that the model scores pairs of texts."""
    try:
        written = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return False
    return isinstance(written, dict) and written.get("model_type") == "CrossEncoder"


def _card_task(folder: Path) -> str | None:
    """`pipeline_tag` in the front matter of the model card; None where it says nothing."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as card:
            front = _FRONT_MATTER.match(card.read(_MAX_CARD_CHARS))
    except (OSError, UnicodeDecodeError):
        return None
    tag = _PIPELINE_TAG.search(front.group(1)) if front else None
    return tag.group(1) if tag else None
