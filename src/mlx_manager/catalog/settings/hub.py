"""Where models come from."""

from __future__ import annotations

from mlx_manager.catalog.settings.setting import Effect, Setting
from mlx_manager.catalog.values import text, words

HUB: tuple[Setting, ...] = (
    Setting(
        "hf_token",
        "text",
        None,
        "",
        "Token for gated and private models of the model hub.",
        text,
        "hf_token",
        takes_effect=Effect.FIXED,
        is_secret=True,
    ),
    Setting(
        "scan_folders",
        "text",
        None,
        "",
        "Folders of other programs to list models from, with commas between; lmstudio and ollama name theirs.",
        words,
        "scan_folders",
        takes_effect=Effect.FIXED,
    ),
)
