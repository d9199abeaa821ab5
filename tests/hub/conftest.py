"""A model hub on loopback, for every test that talks to one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.hub.hub_server import HubServer, Repository, running_hub

CONFIG = {"model_type": "llama", "max_position_embeddings": 2048, "torch_dtype": "bfloat16"}


def weights(num_bytes: int = 100_000, seed: int = 0) -> bytes:
    """A safetensors file with one tensor."""
    header = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}
    )
    content = bytes((seed + 7 * number) % 251 for number in range(num_bytes))
    return len(header).to_bytes(8, "little") + header.encode() + content


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub with one small model, org/tiny."""
    with running_hub() as server:
        server.repositories["org/tiny"] = Repository(
            files={
                "README.md": b"---\nlicense: mit\npipeline_tag: text-generation\n---\n# Tiny\n\nAnswers little.\n",
                "config.json": json.dumps(CONFIG).encode(),
                "tokenizer.json": b"{}" * 2000,
                "model.safetensors": weights(),
                "pytorch_model.bin": b"left out" * 1000,
                "original/params.json": b"{}",
            },
            facts={"tags": ["mlx", "safetensors"], "downloads": 5, "likes": 1, "pipeline_tag": "text-generation"},
        )
        yield server
