"""Searching the hub, and one model of it, as plain values."""

from __future__ import annotations

from typing import Literal

import msgspec

from mlx_manager.catalog import ModelEntry, ModelKind

SORTS = ("downloads", "likes", "updated", "created", "trending")
Sort = Literal["downloads", "likes", "updated", "created", "trending"]


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for on the hub."""

    text: str = ""
    """Part of the name; empty finds everything."""
    author: str | None = None
    kind: ModelKind | None = None
    is_any_format: bool = False
    """Not only what is tagged as made for MLX."""
    num_parameters: str | None = None
    """A range as the hub writes it: "min:1B,max:8B"."""
    sort: Sort = "downloads"
    limit: int = 20
    offset: int = 0
    tags: tuple[str, ...] = ()
    """All of which the hub has to have put on it: a model type such as "llama", or "4-bit"."""


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """One model that was found."""

    id: str
    task: str | None
    downloads: int | None
    """In the last 30 days."""
    likes: int | None
    updated_unix_s: int | None
    num_parameters: int | None
    size_bytes: int | None
    """Of the weights; None where the hub does not say."""
    is_gated: bool
    is_private: bool
    tags: tuple[str, ...]
    architecture: str | None = None
    """The model type of its config. This and the next are None, or false, where the hub does not say."""
    quantization: str | None = None
    has_tools: bool = False
    has_thinking: bool = False
    is_on_disk: bool = False


class SearchPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of what was found."""

    hits: tuple[SearchHit, ...]
    has_more: bool
    """Ask again with a larger offset."""


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a model's repository."""

    path: str
    size_bytes: int
    is_wanted: bool
    """Whether a download fetches it."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub says of one model."""

    hit: SearchHit
    commit: str
    license: str | None
    base_models: tuple[str, ...]
    description: str
    """The card's text in Markdown, without its front matter; empty where there is none or it may not be read."""
    files: tuple[HubFile, ...]
    download_bytes: int
    """What a download fetches, if nothing is there yet."""
    page: str
    """Its page on the hub."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is not on this machine, described as if it were. `entry.path` is gone by the time this is read."""

    card: ModelCard
    entry: ModelEntry
