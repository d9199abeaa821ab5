"""The header X-MLX-Manager-Ignored: parameters that were accepted without effect."""

from __future__ import annotations

import re
from collections.abc import Collection

IGNORED_HEADER = "x-mlx-manager-ignored"
_MAX_IGNORED_NAMES = 32
_NOT_IN_HEADERS = re.compile(r"[^A-Za-z0-9_.-]")


def ignored_headers(ignored: tuple[str, ...], told: Collection[str] = ()) -> dict[str, str]:
    """The header that names the parameters that were accepted without effect, if there were any.

    Those that a provider was `told` are none of these.
    """
    ignored = tuple(name for name in ignored if name.rpartition(".")[2] not in told)
    if not ignored:
        return {}
    names = [_NOT_IN_HEADERS.sub("?", name[:64]) for name in ignored[:_MAX_IGNORED_NAMES]]
    return {IGNORED_HEADER: ",".join(names)}
