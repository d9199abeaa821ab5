"""The settings that were chosen, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlx_manager.catalog.memory import MemoryAmount
from mlx_manager.catalog.model import LoadOptions
from mlx_manager.catalog.overrides import ModelOverrides
from mlx_manager.catalog.settings.setting import Origin


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the operator can choose, validated. Made by `load_settings`; `with_changes` makes others of it."""

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
    shutdown_timeout_s: int
    """What running answers are given once the server is told to stop."""
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
    responses_max_age_h: float
    """Of stored responses; 0 keeps them in memory, until the server ends."""
    responses_max_bytes: int
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
    origins: Mapping[str, Origin] = {}
    """By the name of the setting: where its value came from."""
