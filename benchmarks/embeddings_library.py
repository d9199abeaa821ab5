"""What `embeddings` measures inside one process: mlx-embeddings called directly. Prints one line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import mlx.core as mx
from mlx_embeddings import load

from benchmarks.embeddings import WORKLOADS, repeat


def main() -> None:
    """Arguments: the model folder, the seed, the seconds of each workload, and the names of the workloads."""
    folder, seed, seconds, *names = sys.argv[1:]
    model, tokenizer = load(folder)

    def embed(texts: list[str]) -> mx.array:
        encoded: Any = tokenizer._tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="np")
        vectors: mx.array = model(
            mx.array(encoded["input_ids"]), attention_mask=mx.array(encoded["attention_mask"])
        ).text_embeds
        mx.eval(vectors)
        return vectors

    def ask(texts: list[list[str]]) -> None:
        for each in texts:
            embed(each)

    figures = {
        workload.name: repeat(ask, workload, int(seed), float(seconds))
        for workload in WORKLOADS
        if workload.name in names
    }
    vector: Any = embed(["The cat sat on the mat."]).tolist()
    print(json.dumps({"figures": figures, "vector": vector[0]}))


if __name__ == "__main__":
    main()
