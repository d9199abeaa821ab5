"""What may leave this machine, and how long an answer may take."""

from __future__ import annotations

from mlx_manager.catalog.settings.setting import Setting
from mlx_manager.catalog.values import flag, number

CLOUD: tuple[Setting, ...] = (
    Setting(
        "use_cloud",
        "flag",
        True,
        "",
        "Whether routes may lead to providers.",
        flag,
        "use_cloud",
    ),
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
)
