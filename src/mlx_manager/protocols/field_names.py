"""What a dialect calls the fields that an error can be about, where its own names are others than those of `ir`."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from mlx_manager.errors import MlxManagerError


@dataclass(frozen=True)
class FieldNames:
    """The names under which a request sent its prompt and the length of the answer."""

    prompt: str = "messages"
    max_tokens: str = "max_tokens"

    def told(self, error: MlxManagerError) -> MlxManagerError:
        """`error`, naming the field that was sent."""
        sent = {"messages": self.prompt, "max_tokens": self.max_tokens}.get(error.param or "", error.param)
        if sent == error.param:
            return error
        renamed = copy.copy(error)
        renamed.param = sent
        renamed.message = error.message.replace("max_tokens", self.max_tokens)
        return renamed
