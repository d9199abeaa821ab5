"""Where the model hub is, whose token it is asked with, and where what it sends is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants


@dataclass(frozen=True)
class HubAccess:
    """Plain values; they cross to the downloading process on its standard input, never as arguments."""

    endpoint: str
    cache: str
    """The folder that every tool of Hugging Face's shares: models--ORG--NAME/{blobs,refs,snapshots}."""
    token: str | None = field(default=None, repr=False)
    """None: what the client itself finds, HF_TOKEN or the token that `hf auth login` stored."""

    @property
    def cache_folder(self) -> Path:
        """`cache` as a path."""
        return Path(self.cache)

    def repository_folder(self, model_id: str) -> Path:
        """The folder of the model's repository in the cache."""
        return self.cache_folder / ("models--" + model_id.replace("/", "--"))


def default_access(token: str | None) -> HubAccess:
    """The hub and the cache that HF_ENDPOINT, HF_HUB_CACHE and HF_HOME name, or their defaults."""
    return HubAccess(
        endpoint=constants.ENDPOINT, cache=str(Path(constants.HF_HUB_CACHE).expanduser().absolute()), token=token
    )
