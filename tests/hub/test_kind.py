"""The kind of a model is told from its files: architecture, sentence-transformers' files, card, and name at last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.catalog import ModelKind
from mlx_manager.hub import Inventory

CAUSAL = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
SEEING = {**CAUSAL, "vision_config": {"hidden_size": 8}}
POOLING = {"modules.json": "[]"}
CROSS_ENCODER = {"modules.json": "[]", "config_sentence_transformers.json": '{"model_type": "CrossEncoder"}'}


def card(task: str) -> dict[str, str]:
    return {"README.md": f"---\nlicense: mit\npipeline_tag: {task}\n---\n# A model\n"}


@pytest.mark.parametrize(
    ("name", "config", "files", "kind"),
    [
        ("chat", CAUSAL, {}, ModelKind.TEXT),
        ("no-architecture", {"model_type": "llama"}, {}, ModelKind.TEXT),
        ("chat", CAUSAL, card("text-generation"), ModelKind.TEXT),
        ("sees", SEEING, {"preprocessor_config.json": "{}"}, ModelKind.VISION),
        ("sees", SEEING, {"processor_config.json": "{}"}, ModelKind.VISION),
        ("text-part-alone", SEEING, {}, ModelKind.TEXT),
        ("bare", {"model_type": "bert", "architectures": ["BertModel"]}, {}, ModelKind.EMBEDDING),
        ("bare", {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"]}, {}, ModelKind.EMBEDDING),
        ("masked", {"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, {}, ModelKind.EMBEDDING),
        ("old", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, {}, ModelKind.TEXT),
        ("old", {"model_type": "qwen", "architectures": ["QWenLMHeadModel"]}, {}, ModelKind.TEXT),
        ("chats", {"model_type": "chatglm", "architectures": ["ChatGLMModel"]}, {}, ModelKind.TEXT),
        (
            "chats",
            {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "vision_config": {}},
            {"preprocessor_config.json": "{}"},
            ModelKind.VISION,
        ),
        ("pooled", CAUSAL, POOLING, ModelKind.EMBEDDING),
        ("carded", CAUSAL, card("sentence-similarity"), ModelKind.EMBEDDING),
        ("Qwen3-Embedding-0.6B-4bit", CAUSAL, {}, ModelKind.EMBEDDING),
        ("nomic-embed-text", CAUSAL, {}, ModelKind.EMBEDDING),
        ("embedded-chat", CAUSAL, {}, ModelKind.TEXT),
        ("cross", {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, {}, ModelKind.RERANKER),
        ("carded", CAUSAL, card("text-ranking"), ModelKind.RERANKER),
        ("crossed", CAUSAL, CROSS_ENCODER, ModelKind.RERANKER),
        ("Qwen3-Reranker-0.6B-mxfp8", CAUSAL, {}, ModelKind.RERANKER),
    ],
)
def test_the_kind(tmp_path: Path, name: str, config: dict[str, Any], files: dict[str, str], kind: ModelKind) -> None:
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(8))
    for file, text in files.items():
        (folder / file).write_text(text)
    assert Inventory(tmp_path).find(name).kind is kind
