"""mlx-manager update-check: is there a newer release? Asks the address in the settings, and nobody without one."""

from __future__ import annotations

import json
import os
import re
import urllib.request

from mlx_manager import __version__
from mlx_manager.catalog import SettingsError, load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.errors import Unavailable

_PATIENCE_S = 10.0
_MAX_BYTES = 64 * 1024**2
_RELEASE = re.compile(r"\d+(?:\.\d+)*", re.ASCII)


@with_settings("home", "update_url")
def update_check(**flags: object) -> None:
    """Say whether there is a newer release, by the package index that update_url names. Nothing else ever looks."""
    url = load_settings(os.environ, flags).update_url
    if url is None:
        raise SettingsError(
            "update_url is not set, so nobody is asked. Set it to the JSON page of this package at an index: "
            "https://INDEX/pypi/mlx-manager/json."
        )
    latest = newest_release(url)
    if _numbers(latest) > _numbers(__version__):
        print(f"There is a newer release: {latest}. This is {__version__}.")
    else:
        print(f"This is {__version__}, and {latest} is the newest release.")


def newest_release(url: str) -> str:
    """The version that the page at `url` calls the newest. Raises `Unavailable`."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            version = json.loads(answer.read(_MAX_BYTES))["info"]["version"]
    except OSError as error:
        raise Unavailable(f"{url} does not answer: {error}. Check update_url.") from None
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, str) or not _RELEASE.match(version):
        raise Unavailable(f"What {url} answers names no version. Check update_url.")
    return version


def _numbers(version: str) -> list[int]:
    found = _RELEASE.match(version)
    return [int(number) for number in found[0].split(".")] if found else []
