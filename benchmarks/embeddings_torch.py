"""What `embeddings` measures inside one process of sentence-transformers. Prints one line of JSON.

It runs in an environment that has nothing of ours, so the texts come from a file and it imports little else.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import sentence_transformers
import torch


def main() -> None:
    """Arguments: the model folder, the seconds of each workload, and a JSON file: {workload: [list of texts, …]}.

    The first list of a workload warms it up; the others are taken in turn, again from the first one where they run out.
    """
    folder, seconds, asked = sys.argv[1:]
    model: Any = sentence_transformers.SentenceTransformer(folder, device="cpu", local_files_only=True)
    workloads: dict[str, list[list[str]]] = json.loads(Path(asked).read_text(encoding="utf-8"))
    figures = {name: _texts_per_s(model, lists, float(seconds)) for name, lists in workloads.items()}
    vector = model.encode(["The cat sat on the mat."])[0].tolist()
    versions = {"sentence-transformers": sentence_transformers.__version__, "torch": torch.__version__}
    print(json.dumps({"figures": figures, "vector": vector, "versions": versions}))


def _texts_per_s(model: Any, lists: list[list[str]], seconds: float) -> float:
    """As `embeddings.repeat` counts: over whole requests for at least `seconds`."""
    warm_up, *rest = lists
    model.encode(warm_up)
    num_texts, turn, started_s = 0, 0, time.perf_counter()
    while True:
        texts = rest[turn % len(rest)]
        model.encode(texts)
        num_texts, turn = num_texts + len(texts), turn + 1
        elapsed_s = time.perf_counter() - started_s
        if elapsed_s >= seconds:
            return num_texts / elapsed_s


if __name__ == "__main__":
    main()
