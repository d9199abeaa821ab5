"""Python code that lies beside a model's weights. It is never run, whatever the libraries would do by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from transformers import dynamic_module_utils

NO_OWN_CODE: Mapping[str, Any] = {"trust_remote_code": False}
"""For the libraries' calls that ask: they then take their own class, where they have one."""


def refuse_own_code(config: Mapping[str, Any]) -> None:
    """From now on this process runs none: not for the calls of libraries either that do not ask.

    Raises `ValueError` for a `config` that brings the code of the model itself.
    """
    dynamic_module_utils.get_class_in_module = _refuse
    named = config.get("model_file")
    if named:
        raise ValueError(_reason(str(named)))


def _refuse(class_name: str, module_path: str | PathLike[str], **_: Any) -> type:
    raise ValueError(_reason(f"{class_name} in {module_path}"))


def _reason(what: str) -> str:
    return f"its folder brings Python code of its own ({what}), which is never run here"
