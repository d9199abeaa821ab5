"""The name of a model in a request, of any dialect. It is logged, kept and compared: it may not be of any length."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
