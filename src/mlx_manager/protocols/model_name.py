"""The name of a model in a request, of any dialect. It is logged, kept and compared: it may not be of any length."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field

from mlx_manager.errors import InvalidRequest
from mlx_manager.protocols.wire import Wire

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
DEFAULT_MODEL = "default_model"
"""What clients of mlx_lm's server call the model that a server was started with, if they name any."""


class NamesModel(Wire):
    """A body that may leave the model to the server."""

    model: ModelName = DEFAULT_MODEL


_Body = TypeVar("_Body", bound=NamesModel)


def with_model(body: _Body, default_model: str | None) -> _Body:
    """`body` with the model that the server was started with, where it names none. Raises `InvalidRequest`."""
    if body.model == DEFAULT_MODEL and default_model is not None:
        return body.model_copy(update={"model": default_model})
    if "model" not in body.model_fields_set:
        raise InvalidRequest(
            "model is required, and is not in the request: this server was started without a default.", param="model"
        )
    return body
