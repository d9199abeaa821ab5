"""The settings: one table, from which validation, variables, flags, help and the documentation come.

A value is looked for among the flags, then in the MLX_MANAGER_* environment, then in config.toml in the home folder.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from mlx_manager.catalog.isolation import PrefixIsolation
from mlx_manager.catalog.memory import MemoryAmount, memory_amount
from mlx_manager.catalog.model import LoadOptions
from mlx_manager.catalog.overrides import DTYPES, SHARING, ModelOverrides, OverrideError, override
from mlx_manager.catalog.values import (
    choice,
    flag,
    number,
    optional_words,
    path,
    size_bytes,
    text,
    web_address,
    whole,
    words,
)

CONFIG_FILE = "config.toml"
MODELS_TABLE = "models"
"""The table of config.toml that holds one table per model."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the operator can choose, validated. Made by `load_settings` only."""

    home: Path
    """Holds everything the server writes; absolute."""
    host: str
    port: int
    """0 lets the system choose a free one."""
    model: str | None
    """The default model: a name under home/models, or a path to an MLX model folder."""
    log_level: str
    max_body_bytes: int
    max_messages: int
    max_tools: int
    update_url: str | None
    """Where `update-check` asks for the newest release; None: nowhere."""
    prefix_isolation: str
    """none, user or key: see `PrefixIsolation`."""
    keepalive_s: float
    """A stream that says nothing for so long sends an SSE comment."""
    database: str | None
    """None is a SQLite file in home; else the address of a PostgreSQL database."""
    cors_origins: tuple[str, ...]
    """Web pages of these origins may use /v1 from a browser."""
    use_cloud: bool
    """Whether providers may be asked at all."""
    cloud_budget_usd: float | None
    """What all answers of providers together may cost in a month; None: no limit."""
    local_timeout_s: float
    """How long a local model may take to its first token, and from each to the next."""
    use_spare: bool
    hf_token: str | None
    """For gated and private models of the model hub; None leaves it to HF_TOKEN and to what `hf auth login` stored."""
    scan_folders: tuple[str, ...] | None
    """Folders of other programs whose models are listed too: paths, or the words lmstudio and ollama."""
    memory_budget: MemoryAmount
    """For all models together; a share is one of what the device recommends."""
    memory_floor: MemoryAmount
    """When the system has less available, idle models go; a share is one of the system's memory."""
    eviction: str
    """lru, lfu or none."""
    drain_timeout_s: float
    hang_timeout_s: float
    """How long a worker that has work may say nothing; 0: for ever."""
    load_timeout_s: float
    """The same while it loads."""
    leak_limit: MemoryAmount
    """How far a worker may outgrow its plan; a share is one of the plan; 0: as far as it likes."""
    failure_cooldown_s: float
    model_ttl_s: float
    """Idle time after which a model is unloaded; 0: never."""
    preload: tuple[str, ...]
    image_timeout_s: float
    """For fetching one image that a request names by its address."""
    image_hosts: tuple[str, ...]
    """Hosts that images are fetched from although they are not public."""
    console: bool
    """Whether the pages in the browser are served."""
    audit_max_rows: int
    audit_max_age_h: float
    alert_webhook: str | None
    """Address that alerts are posted to."""
    alert_error_share: float
    alert_ttft_s: float
    alert_worker_restarts: int
    alert_disk_free_bytes: int
    alert_period_s: float
    has_traces: bool
    has_trace_content: bool
    """Whether traces hold prompts and answers."""
    trace_max_bytes: int
    trace_max_age_h: float
    load: LoadOptions
    models: Mapping[str, ModelOverrides]
    """By name: what `[models."NAME"]` says. The names need not exist."""


class SettingsError(Exception):
    """A setting cannot be used. The message names it, where it came from, and what would be right."""


@dataclass(frozen=True)
class Setting:
    """One row of the table. `name` is its key in config.toml; its field may carry the unit in its name as well."""

    name: str
    type: str
    """For people: what kind of value it takes."""
    default: str | int | float | bool | tuple[str, ...] | None
    unit: str
    help: str
    parse: Callable[[object], object]
    """From what the source holds (text, or a TOML value). Raises `ValueError` that says what would be right."""
    field: str
    """Of `Settings`, or of `LoadOptions` where `is_load`."""
    is_load: bool = False
    choices: tuple[str, ...] = ()

    @property
    def env(self) -> str:
        """Its environment variable."""
        return f"MLX_MANAGER_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return f"--{self.name.replace('_', '-')}"


EVICTIONS = ("lru", "lfu", "none")
ISOLATIONS = tuple(isolation.value for isolation in PrefixIsolation)
LOG_LEVELS = ("debug", "info", "warning", "error")
_LOAD = LoadOptions()

SETTINGS: tuple[Setting, ...] = (
    Setting("home", "path", "~/.mlx-manager", "", "Folder that holds everything the server writes.", path, "home"),
    Setting("host", "text", "127.0.0.1", "", "Address to listen on.", text, "host"),
    Setting("port", "integer", 10242, "", "Port to listen on; 0 takes a free one.", whole(0, 65535), "port"),
    Setting("model", "text", None, "", "Default model: a name in the home folder, or a model folder.", text, "model"),
    Setting(
        "log_level", "choice", "info", "", "How much to log.", choice(*LOG_LEVELS), "log_level", choices=LOG_LEVELS
    ),
    Setting(
        "max_body", "bytes", "32MiB", "bytes", "Largest request body accepted.", size_bytes(1024), "max_body_bytes"
    ),
    Setting(
        "max_messages", "integer", 10_000, "messages", "Most messages of one conversation.", whole(1), "max_messages"
    ),
    Setting(
        "update_url",
        "text",
        None,
        "",
        "JSON page of this package at an index, for update-check; nobody is asked without it, or by anything else.",
        web_address,
        "update_url",
    ),
    Setting(
        "prefix_isolation",
        "choice",
        "none",
        "",
        "Who shares the prefix cache: everybody (none), each account with itself (user), or each API key (key).",
        choice(*ISOLATIONS),
        "prefix_isolation",
        choices=ISOLATIONS,
    ),
    Setting("max_tools", "integer", 1_000, "tools", "Most tools of one request.", whole(1), "max_tools"),
    Setting(
        "keepalive", "seconds", 5.0, "s", "Silence after which a stream sends a comment.", number(0.1), "keepalive_s"
    ),
    Setting(
        "database",
        "text",
        None,
        "",
        "Where accounts, keys, providers and routes are kept: postgresql://…; else a SQLite file in the home folder.",
        text,
        "database",
    ),
    Setting(
        "cors_origins",
        "list",
        (),
        "",
        "Origins whose web pages may use /v1 from a browser, such as https://chat.example; otherwise none may.",
        optional_words,
        "cors_origins",
    ),
    Setting("use_cloud", "flag", True, "", "Whether routes may lead to providers.", flag, "use_cloud"),
    Setting(
        "cloud_budget",
        "US dollars",
        None,
        "USD",
        "Most that the answers of all providers may cost in a month of UTC.",
        number(0.0),
        "cloud_budget_usd",
    ),
    Setting(
        "local_timeout",
        "seconds",
        900.0,
        "s",
        "Longest wait for the first token of a local model, and between two of its tokens.",
        number(1.0),
        "local_timeout_s",
    ),
    Setting("use_spare", "flag", True, "", "Keep one idle worker ready, so that loading is quick.", flag, "use_spare"),
    Setting("hf_token", "text", None, "", "Token for gated and private models of the model hub.", text, "hf_token"),
    Setting(
        "scan_folders",
        "text",
        None,
        "",
        "Folders of other programs to list models from, with commas between; lmstudio and ollama name theirs.",
        words,
        "scan_folders",
    ),
    Setting(
        "memory_budget",
        "size or share",
        "75%",
        "bytes",
        "Memory for all models together; a share is one of what the device recommends.",
        memory_amount,
        "memory_budget",
    ),
    Setting(
        "memory_floor",
        "size or share",
        "5%",
        "bytes",
        "When the system has less memory available, idle models give up their caches, then go.",
        memory_amount,
        "memory_floor",
    ),
    Setting(
        "eviction",
        "choice",
        "lru",
        "",
        "Which idle model gives way when another needs memory: the least recently or the least often used.",
        choice(*EVICTIONS),
        "eviction",
        choices=EVICTIONS,
    ),
    Setting(
        "drain_timeout",
        "seconds",
        30.0,
        "s",
        "Longest wait for the requests of a model that has to go.",
        number(0.0),
        "drain_timeout_s",
    ),
    Setting(
        "hang_timeout",
        "seconds",
        600.0,
        "s",
        "Silence after which a worker that has work is ended and replaced; 0 waits for ever.",
        number(0.0),
        "hang_timeout_s",
    ),
    Setting(
        "load_timeout",
        "seconds",
        1800.0,
        "s",
        "Silence after which a worker that loads a model is ended; 0 waits for ever.",
        number(0.0),
        "load_timeout_s",
    ),
    Setting(
        "leak_limit",
        "size or share",
        "100%",
        "bytes",
        "A worker that takes so much more memory than planned is replaced; a share is one of its plan; 0 is never.",
        memory_amount,
        "leak_limit",
    ),
    Setting(
        "failure_cooldown",
        "seconds",
        300.0,
        "s",
        "Pause before a model that failed three times in a row is tried again, unless somebody loads it.",
        number(0.0),
        "failure_cooldown_s",
    ),
    Setting(
        "model_ttl",
        "seconds",
        0.0,
        "s",
        "Idle time after which a model is unloaded; 0 keeps it.",
        number(0.0),
        "model_ttl_s",
    ),
    Setting("console", "flag", True, "", "Serve the console, the pages in the browser.", flag, "console"),
    Setting("preload", "list", (), "", "Models to load at the start, as far as they fit.", optional_words, "preload"),
    Setting(
        "image_timeout",
        "seconds",
        10.0,
        "s",
        "Longest wait for an image or a video that a request names by its address.",
        number(0.1),
        "image_timeout_s",
    ),
    Setting(
        "image_hosts",
        "list",
        (),
        "",
        "Hosts in private networks that images and videos may be fetched from; public ones always may.",
        optional_words,
        "image_hosts",
    ),
    Setting(
        "audit_max_rows",
        "integer",
        1_000_000,
        "requests",
        "Most requests that the audit keeps; the oldest go.",
        whole(1),
        "audit_max_rows",
    ),
    Setting(
        "audit_max_age",
        "hours",
        2160.0,
        "h",
        "Age at which requests leave the audit.",
        number(0.01),
        "audit_max_age_h",
    ),
    Setting(
        "alert_webhook", "text", None, "", "Address that alerts are posted to as JSON.", web_address, "alert_webhook"
    ),
    Setting(
        "alert_error_share",
        "number",
        0.05,
        "",
        "Share of failed requests, 0 to 1, above which an alert fires; 0 is never.",
        number(0.0, 1.0),
        "alert_error_share",
    ),
    Setting(
        "alert_ttft",
        "seconds",
        0.0,
        "s",
        "Time to the first token (p95) above which an alert fires; 0 is never.",
        number(0.0),
        "alert_ttft_s",
    ),
    Setting(
        "alert_worker_restarts",
        "integer",
        3,
        "",
        "Deaths of workers within 15 minutes at which an alert fires; 0 is never.",
        whole(0),
        "alert_worker_restarts",
    ),
    Setting(
        "alert_disk_free",
        "bytes",
        "2GiB",
        "bytes",
        "Free space in the home folder below which an alert fires; 0 is never.",
        size_bytes(0),
        "alert_disk_free_bytes",
    ),
    Setting(
        "alert_period", "seconds", 10.0, "s", "Time between two looks at the alerts.", number(0.1), "alert_period_s"
    ),
    Setting("traces", "flag", True, "", "Keep traces of requests, in a file in the home folder.", flag, "has_traces"),
    Setting(
        "trace_content",
        "flag",
        False,
        "",
        "Keep prompts and answers in traces, too.",
        flag,
        "has_trace_content",
    ),
    Setting(
        "trace_max_size",
        "bytes",
        "256MiB",
        "bytes",
        "Largest size of all traces; the oldest go.",
        size_bytes(1024**2),
        "trace_max_bytes",
    ),
    Setting("trace_max_age", "hours", 168.0, "h", "Age at which traces are deleted.", number(0.01), "trace_max_age_h"),
    Setting(
        "dtype",
        "choice",
        _LOAD.dtype,
        "",
        "Type to compute in; auto is the model's own on Metal and float32 on a CPU.",
        choice(*DTYPES),
        "dtype",
        is_load=True,
        choices=DTYPES,
    ),
    Setting(
        "kv_budget",
        "bytes",
        "2GiB",
        "bytes",
        "Most memory for the keys and values of a model's requests.",
        size_bytes(1024**2),
        "kv_budget_bytes",
        is_load=True,
    ),
    Setting(
        "max_batch_size",
        "integer",
        _LOAD.max_batch_size,
        "sequences",
        "Most sequences that run at the same time.",
        whole(1),
        "max_batch_size",
        is_load=True,
    ),
    Setting(
        "max_queued_requests",
        "integer",
        _LOAD.max_queued_requests,
        "requests",
        "Most requests that wait; one more is refused with 429.",
        whole(1),
        "max_queued_requests",
        is_load=True,
    ),
    Setting(
        "max_step_tokens",
        "integer",
        _LOAD.max_step_tokens,
        "tokens",
        "Most tokens of one engine step, prefill and decode together.",
        whole(16),
        "max_step_tokens",
        is_load=True,
    ),
    Setting(
        "shared_prefix_decode",
        "choice",
        _LOAD.shared_prefix_decode,
        "",
        "Read a beginning that running requests share once for all of them; auto does where that was found faster.",
        choice(*SHARING),
        "shared_prefix_decode",
        is_load=True,
        choices=SHARING,
    ),
    Setting(
        "max_draft_tokens",
        "integer",
        _LOAD.max_draft_tokens,
        "tokens",
        "Most tokens guessed ahead of an answer from its own text, where that pays; 0 guesses none.",
        whole(0, 64),
        "max_draft_tokens",
        is_load=True,
    ),
    Setting(
        "max_context",
        "integer",
        _LOAD.max_context,
        "tokens",
        "Lowers the model's own context limit.",
        whole(1),
        "max_context",
        is_load=True,
    ),
    Setting(
        "default_max_tokens",
        "integer",
        _LOAD.default_max_tokens,
        "tokens",
        "Completion length where a request names none; otherwise what the context leaves.",
        whole(1),
        "default_max_tokens",
        is_load=True,
    ),
    Setting(
        "max_images",
        "integer",
        _LOAD.max_images,
        "images",
        "Most images of one request.",
        whole(0),
        "max_images",
        is_load=True,
    ),
    Setting(
        "max_image_bytes",
        "bytes",
        "20MiB",
        "bytes",
        "Largest image file accepted.",
        size_bytes(1024),
        "max_image_bytes",
        is_load=True,
    ),
    Setting(
        "max_image_pixels",
        "integer",
        _LOAD.max_image_pixels,
        "pixels",
        "Largest image accepted, width times height.",
        whole(1),
        "max_image_pixels",
        is_load=True,
    ),
    Setting(
        "max_video_bytes",
        "bytes",
        "64MiB",
        "bytes",
        "Largest video file accepted.",
        size_bytes(1024),
        "max_video_bytes",
        is_load=True,
    ),
    Setting(
        "max_video_length",
        "seconds",
        _LOAD.max_video_length_s,
        "s",
        "Longest video accepted.",
        number(0.1),
        "max_video_length_s",
        is_load=True,
    ),
    Setting(
        "max_video_frames",
        "integer",
        _LOAD.max_video_frames,
        "frames",
        "Most frames that a model sees of the videos of one request, evenly chosen; 0 takes no videos.",
        whole(0),
        "max_video_frames",
        is_load=True,
    ),
    Setting(
        "max_video_pixels",
        "integer",
        _LOAD.max_video_pixels,
        "pixels",
        "Largest frame of a video accepted, width times height.",
        whole(1),
        "max_video_pixels",
        is_load=True,
    ),
    Setting(
        "image_cache",
        "bytes",
        "256MiB",
        "bytes",
        "Most memory for what a vision model keeps of images and videos it saw.",
        size_bytes(0),
        "image_cache_bytes",
        is_load=True,
    ),
    Setting(
        "priority_ageing",
        "seconds",
        _LOAD.priority_ageing_s,
        "s",
        "Waiting time that lifts a request by one priority.",
        number(0.001),
        "priority_ageing_s",
        is_load=True,
    ),
    Setting(
        "template_timeout",
        "seconds",
        _LOAD.template_timeout_s,
        "s",
        "Longest time that a model's chat template may compute for one conversation.",
        number(0.01),
        "template_timeout_s",
        is_load=True,
    ),
)

CLIENT_VARIABLES = ("MLX_MANAGER_API_KEY",)
"""Read by commands that ask a running server, not by the server."""

LIVE_SETTINGS = ("use_cloud", "cloud_budget", "memory_budget", "eviction", "drain_timeout")
"""Those that an admin can change while the server runs; what was changed is kept, and wins."""

_ROWS = MappingProxyType({row.name: row for row in SETTINGS})


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """The settings in force. `overrides` are the command line's, by setting name; a None there was not given.

    An empty variable counts as unset. Raises `SettingsError`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in _ROWS:
            raise SettingsError(f"There is no setting {name!r}. {_nearest(name)}")
    home = _choose(_ROWS["home"], given, environ, {}, CONFIG_FILE)
    assert isinstance(home, Path)
    config_file = home / CONFIG_FILE
    config = _read_config(config_file)
    chosen = {row.name: _choose(row, given, environ, config, str(config_file)) for row in SETTINGS}
    load = LoadOptions(**{row.field: chosen[row.name] for row in SETTINGS if row.is_load})  # type: ignore[arg-type]
    own = {row.field: chosen[row.name] for row in SETTINGS if not row.is_load}
    _check_together(load)
    models = _read_models(config.get(MODELS_TABLE, {}), str(config_file))
    return Settings(load=load, models=models, **own)  # type: ignore[arg-type]


def parse_setting(name: str, value: object) -> object:
    """The value of one setting, as an admin sends it. Raises `SettingsError`."""
    if name not in _ROWS:
        raise SettingsError(f"There is no setting {name!r}. {_nearest(name)}")
    return _parse(_ROWS[name], value, "the request")


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each MLX_MANAGER_* variable that no setting reads: most likely a misspelt one."""
    known = {row.env for row in SETTINGS}
    return [
        f"{name} is set, but no setting reads it. {_nearest(name.removeprefix('MLX_MANAGER_').lower(), as_env=True)}"
        for name in sorted(environ)
        if name.startswith("MLX_MANAGER_") and name not in known and name not in CLIENT_VARIABLES
    ]


def _choose(
    row: Setting,
    given: Mapping[str, object],
    environ: Mapping[str, str],
    config: Mapping[str, object],
    config_name: str,
) -> object:
    if row.name in given:
        return _parse(row, given[row.name], f"the flag {row.flag}")
    if environ.get(row.env, "") != "":
        return _parse(row, environ[row.env], f"the environment variable {row.env}")
    if row.name in config:
        return _parse(row, config[row.name], f"{row.name} in {config_name}")
    return None if row.default is None else _parse(row, row.default, "its default")


def _parse(row: Setting, value: object, source: str) -> object:
    try:
        return row.parse(value)
    except ValueError as error:
        raise SettingsError(f"{row.name} cannot be {value!r} (from {source}): {error}") from None


def _read_config(file: Path) -> dict[str, object]:
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}. Make it a readable UTF-8 file, or remove it.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}. A line looks like: port = 10242") from None
    for key in config:
        if key == "home":
            raise SettingsError(f"home cannot be set in {file}, which lies inside it. Set MLX_MANAGER_HOME or --home.")
        if key not in _ROWS and key != MODELS_TABLE:
            raise SettingsError(f"There is no setting {key!r} (in {file}). {_nearest(key)}")
    return config


def _read_models(tables: object, config_name: str) -> dict[str, ModelOverrides]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingsError(f'{MODELS_TABLE} in {config_name} holds tables, one per model: [{MODELS_TABLE}."NAME"].')
    models: dict[str, ModelOverrides] = {}
    claimed: dict[str, str] = {}
    for name, table in tables.items():
        try:
            models[name] = override(ModelOverrides(), table)
        except OverrideError as error:
            raise SettingsError(f'{error} (in [{MODELS_TABLE}."{name}"] of {config_name})') from None
        for alias in models[name].aliases:
            other = claimed.setdefault(alias, name)
            if other != name or alias in tables:
                holder = "a model of its own there" if alias in tables else f"an alias of {other!r} too"
                raise SettingsError(
                    f"The alias {alias!r} of {name!r} is {holder} (in {config_name}). A name leads to one model: "
                    "choose another alias."
                )
    return models


def _nearest(name: str, *, as_env: bool = False) -> str:
    close = difflib.get_close_matches(name, _ROWS, n=1, cutoff=0.5)
    if not close:
        return f"Known settings: {', '.join(row.env if as_env else row.name for row in SETTINGS)}."
    return f"Did you mean {_ROWS[close[0]].env if as_env else close[0]}?"


def _check_together(load: LoadOptions) -> None:
    if load.max_step_tokens < load.max_batch_size:
        raise SettingsError(
            f"max_step_tokens ({load.max_step_tokens}) is less than max_batch_size ({load.max_batch_size}): a step "
            "takes one token of every running sequence. Raise max_step_tokens or lower max_batch_size."
        )
    if load.max_context and load.default_max_tokens and load.default_max_tokens >= load.max_context:
        raise SettingsError(
            f"default_max_tokens ({load.default_max_tokens}) leaves no room for a prompt in max_context "
            f"({load.max_context}). Lower default_max_tokens."
        )
