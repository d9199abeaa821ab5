"""Which family a model is of: told by its chat template where that says how calls are written, else by its config."""

from __future__ import annotations

import re

from mlx_manager.models.families.family import GENERIC, Family
from mlx_manager.models.families.table import FAMILIES


def find_family(model_type: str, template: str) -> Family:
    """The family of a model with this `model_type` in its config and this chat template; `GENERIC` for an unknown one.

    A tuned model has the config of its base and the template of those who tuned it, so marks in the template win: with
    the model type as well, then alone. Where none is found the model type decides, for the most general entry.
    """
    marked = [family for family in FAMILIES if family.marks and re.search(family.marks, template)]
    by_type = [family for family in FAMILIES if model_type in family.model_types]
    candidates = (*(family for family in marked if family in by_type), *marked, *reversed(by_type), GENERIC)
    return candidates[0]
