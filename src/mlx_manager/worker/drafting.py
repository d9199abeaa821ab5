"""Loads the draft model beside its target, and refuses one that cannot guess for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.caches import UnknownCache
from mlx_manager.engine.draft_model import DraftModel
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.runner import PagedRunner, Runner
from mlx_manager.engine.windows import longest_window
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.loading import LoadedModel, Report, load_text_model

_log = logging.getLogger("mlx_manager.worker")
_BEGINS_AT, _SHARE = 0.8, 0.05
"""Of the whole load: after which part the draft model is loaded, and the part that it is taken to be."""
_PROBE_ERRORS = (ValueError, TypeError, AttributeError, IndexError)
"""What a model's own code raises when it wants more of its cache than to hand in keys and values."""


@dataclass(frozen=True)
class LoadedDraft:
    """A draft model in memory, before it has an arena."""

    entry: ModelEntry
    loaded: LoadedModel
    caches: ModelCaches
    target: LoadedModel

    def over(self, runner: Runner, reason: str) -> DraftModel:
        """It at work over `runner`, which the check at load chose for `reason`. Raises `ModelLoadFailed`."""
        if not isinstance(runner, PagedRunner):
            raise _refused(self.entry, f"its keys and values cannot be paged: {reason}")
        return DraftModel(
            runner,
            self.loaded.vocabulary_size,
            self.target.vocabulary_size,
            max_context=self.loaded.max_context,
        )


def load_draft(target: LoadedModel, options: LoadOptions, report: Report) -> LoadedDraft | None:
    """The draft model of `options`, loaded; None where none is named, or nothing can be guessed for `target`.

    Raises `ModelLoadFailed` for one that cannot guess for it, which names the setting and the fix.
    """
    entry = options.draft_entry
    if entry is None:
        if options.draft_model is not None:
            raise ModelLoadFailed(f"The draft_model {options.draft_model!r} was not found on this machine.")
        return None
    if not options.max_draft_tokens:
        raise ModelLoadFailed(
            f"A draft_model is set, {entry.name}, and max_draft_tokens is 0, so that it would guess nothing: set "
            "max_draft_tokens, to 4 say, or take draft_model away."
        )
    if find_fault(target, options):
        return None

    def report_draft(stage: str, fraction: float) -> None:
        report(f"draft model: {stage}", _BEGINS_AT + _SHARE * fraction)

    try:
        loaded = load_text_model(entry, options, report_draft)
    except ModelLoadFailed as error:
        raise _refused(entry, error.message) from error
    _check_vocabulary(entry, loaded, target)
    wrap_attention(loaded.model)
    try:
        caches = probe_caches(loaded.model)
    except UnknownCache as error:
        raise _refused(entry, f"a layer keeps a {error}, which is not paged") from None
    except _PROBE_ERRORS as error:
        raise _refused(entry, f"its attention is not plain: {error}") from None
    if caches.state_bytes:
        raise _refused(entry, "it has recurrent layers, whose states cannot be taken back when a guess was wrong")
    return LoadedDraft(entry, loaded, caches, target)


def find_fault(target: LoadedModel, options: LoadOptions) -> str:
    """Why nothing can be guessed ahead for `target`, whoever guesses; "" where that is not known to be so."""
    if options.hostfile is not None:
        return "it is split over several ranks"
    wrap_attention(target.model)
    try:
        caches = probe_caches(target.model)
    except (UnknownCache, *_PROBE_ERRORS):
        return "its keys and values are not paged"
    if caches.state_bytes:
        return "the states of its recurrent layers cannot be taken back when a guess was wrong"
    return "all its layers have a window" if longest_window(caches.layout.windows) is not None else ""


def _check_vocabulary(entry: ModelEntry, draft: LoadedModel, target: LoadedModel) -> None:
    own, wanted = (_vocabulary(model) for model in (draft, target))
    if own == wanted:
        return
    different = sorted(token for token in {*own, *wanted} if own.get(token) != wanted.get(token))
    examples = ", ".join(repr(token) for token in different[:3])
    raise _refused(entry, f"its tokenizer is another one: {len(different)} tokens differ, such as {examples}")


def _vocabulary(model: LoadedModel) -> dict[str, int]:
    get_vocab: Callable[[], dict[str, int]] = model.tokenizer.get_vocab
    return get_vocab()


def _refused(entry: ModelEntry, why: str) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"{entry.name} cannot be the draft_model here: {why}. Set draft_model to a smaller model with the same "
        "tokenizer, as those of one family are, or take it away."
    )
