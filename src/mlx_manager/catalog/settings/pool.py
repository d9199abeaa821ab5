"""How models share the memory, and when they go."""

from __future__ import annotations

from mlx_manager.catalog.memory import memory_amount
from mlx_manager.catalog.settings.setting import Effect, Setting
from mlx_manager.catalog.values import choice, flag, number, optional_words

EVICTIONS = ("lru", "lfu", "none")

POOL: tuple[Setting, ...] = (
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
        "model_ttl",
        "seconds",
        0.0,
        "s",
        "Idle time after which a model is unloaded; 0 keeps it.",
        number(0.0),
        "model_ttl_s",
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
        "preload",
        "list",
        (),
        "",
        "Models to load at the start, as far as they fit.",
        optional_words,
        "preload",
        takes_effect=Effect.RESTART,
    ),
    Setting(
        "use_spare",
        "flag",
        True,
        "",
        "Keep one idle worker ready, so that loading is quick.",
        flag,
        "use_spare",
        takes_effect=Effect.RESTART,
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
        "Beyond its plan and this a worker is replaced; a share is one of the plan and at least 1GiB; 0 is never.",
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
        takes_effect=Effect.RESTART,
    ),
)
