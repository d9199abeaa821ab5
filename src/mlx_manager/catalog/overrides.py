"""Settings of one model, which win over the server's: a second table, for `[models."NAME"]` in config.toml and for the
admin routes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from mlx_manager.catalog.model import LoadOptions
from mlx_manager.catalog.values import choice, flag, number, size_bytes, text, whole, whole_of, words

PRIORITIES = ("high", "normal", "low")


class ModelOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for one model alone. None leaves it to the server's settings, or to the model's own files."""

    description: str | None = None
    aliases: tuple[str, ...] = ()
    pinned: bool = False
    ttl_s: float | None = None
    """0: it stays however long it is idle, whatever the server's setting says."""
    priority: str | None = None
    system_prompt: str | None = None
    dtype: str | None = None
    kv_budget_bytes: int | None = None
    kv_cache_bits: int | None = None
    max_context: int | None = None
    shared_prefix_decode: str | None = None
    max_draft_tokens: int | None = None
    draft_model: str | None = None
    disk_cache: str | None = None
    hostfile: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None

    def load_options(self, base: LoadOptions) -> LoadOptions:
        """`base` with what this says about loading."""
        names = (
            "dtype",
            "kv_budget_bytes",
            "kv_cache_bits",
            "max_context",
            "shared_prefix_decode",
            "max_draft_tokens",
            "draft_model",
            "hostfile",
        )
        own = {name: getattr(self, name) for name in names}
        if self.disk_cache == "off":
            own["disk_cache_bytes"] = 0
        return msgspec.structs.replace(base, **{name: value for name, value in own.items() if value is not None})


class OverrideError(ValueError):
    """A setting of a model cannot be used; `name` is its name, the message says what would be right."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class ModelSetting:
    """One row of the table."""

    name: str
    type: str
    """For people: what kind of value it takes."""
    help: str
    parse: Callable[[object], object]
    """Raises `ValueError` that says what would be right."""
    field: str
    """Of `ModelOverrides`."""
    choices: tuple[str, ...] = ()
    needs_load: bool = False
    """Whether a model in memory has to be loaded again before it holds."""


DTYPES = ("auto", "float32", "float16", "bfloat16")
SHARING = ("auto", "on", "off")
SWITCH = ("on", "off")
KV_CACHE_BITS = (0, 4, 8)

MODEL_SETTINGS: tuple[ModelSetting, ...] = (
    ModelSetting("description", "text", "What it is for: the console shows it beside its name.", text, "description"),
    ModelSetting("aliases", "list", "Other names that it answers to.", words, "aliases"),
    ModelSetting("pinned", "flag", "It is never evicted or trimmed.", flag, "pinned"),
    ModelSetting("ttl", "seconds", "Idle time after which it is unloaded; 0 keeps it.", number(0.0), "ttl_s"),
    ModelSetting(
        "priority",
        "choice",
        "Priority of its requests that ask for none but normal.",
        choice(*PRIORITIES),
        "priority",
        choices=PRIORITIES,
    ),
    ModelSetting(
        "system_prompt",
        "text",
        "System message of conversations that have none.",
        text,
        "system_prompt",
    ),
    ModelSetting("dtype", "choice", "Type to compute in.", choice(*DTYPES), "dtype", choices=DTYPES, needs_load=True),
    ModelSetting(
        "kv_budget",
        "bytes",
        "Most memory for the keys and values of its requests.",
        size_bytes(1024**2),
        "kv_budget_bytes",
        needs_load=True,
    ),
    ModelSetting(
        "kv_cache_bits",
        "integer",
        "Keep keys and values quantized in 8 or 4 bits, so that longer or more conversations fit; 0 keeps them as they "
        "are computed.",
        whole_of(*KV_CACHE_BITS),
        "kv_cache_bits",
        needs_load=True,
    ),
    ModelSetting(
        "max_context",
        "integer",
        "Lowers its context limit; is the limit where its config names none.",
        whole(1),
        "max_context",
        needs_load=True,
    ),
    ModelSetting(
        "shared_prefix_decode",
        "choice",
        "Read a beginning that its running requests share once for all of them.",
        choice(*SHARING),
        "shared_prefix_decode",
        choices=SHARING,
        needs_load=True,
    ),
    ModelSetting(
        "max_draft_tokens",
        "integer",
        "Most tokens guessed ahead of an answer, from its own text or by its draft model; 0 guesses none.",
        whole(0, 64),
        "max_draft_tokens",
        needs_load=True,
    ),
    ModelSetting(
        "draft_model",
        "text",
        "Name or folder of a smaller model with the same tokenizer that guesses ahead; see docs/drafts.md.",
        text,
        "draft_model",
        needs_load=True,
    ),
    ModelSetting(
        "disk_cache",
        "choice",
        "Whether its prefixes are kept on disk, where the server keeps any.",
        choice(*SWITCH),
        "disk_cache",
        choices=SWITCH,
        needs_load=True,
    ),
    ModelSetting(
        "hostfile",
        "text",
        "Host file of the ring of machines that it is split over; see docs/scaling.md.",
        text,
        "hostfile",
        needs_load=True,
    ),
    ModelSetting("temperature", "number", "Where a request names none.", number(0.0, 2.0), "temperature"),
    ModelSetting("top_p", "number", "Where a request names none.", number(0.0, 1.0), "top_p"),
    ModelSetting("top_k", "integer", "Where a request names none.", whole(0), "top_k"),
    ModelSetting("min_p", "number", "Where a request names none.", number(0.0, 1.0), "min_p"),
    ModelSetting(
        "repetition_penalty", "number", "Where a request names none.", number(0.01, 10.0), "repetition_penalty"
    ),
    ModelSetting("max_tokens", "integer", "Completion length where a request names none.", whole(1), "max_tokens"),
)

_ROWS = MappingProxyType({row.name: row for row in MODEL_SETTINGS})


def model_setting(name: str) -> ModelSetting:
    """The row called `name`. Raises `OverrideError`."""
    if name not in _ROWS:
        close = difflib.get_close_matches(name, _ROWS, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(_ROWS)}."
        raise OverrideError(name, f"A model has no setting {name!r}. {hint}")
    return _ROWS[name]


def override(base: ModelOverrides, values: Mapping[str, object]) -> ModelOverrides:
    """`base` with `values`, by setting name, as TOML or JSON has them. Raises `OverrideError`."""
    parsed: dict[str, object] = {}
    for name, value in values.items():
        row = model_setting(name)
        try:
            parsed[row.field] = row.parse(value)
        except ValueError as error:
            raise OverrideError(name, f"{name} cannot be {value!r}: {error}") from None
    return msgspec.structs.replace(base, **parsed)


def render_override(value: object) -> str:
    """A value of `ModelOverrides` as it can be typed in; empty for what is not said."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
