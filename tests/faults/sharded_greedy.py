"""One rank of a model that is split over several: started by `mlx.launch`, prints the tokens of a greedy answer.

    mlx.launch -n 2 --backend ring tests/faults/sharded_greedy.py FOLDER NUM_TOKENS

Every rank computes every step; all of them come to the same token, because what each has of a layer's output is summed
over all ranks. Rank 0 prints.
"""

from __future__ import annotations

import json
import sys

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import sharded_load

PROMPT = "The capital of France is"


def main() -> None:
    """Answer."""
    folder, num_tokens = sys.argv[1], int(sys.argv[2])
    group = mx.distributed.init()
    model, tokenizer = sharded_load(folder, tensor_group=group)
    cache = make_prompt_cache(model)
    fed = mx.array([tokenizer.encode(PROMPT)])
    tokens: list[int] = []
    while len(tokens) < num_tokens:
        logits = model(fed, cache=cache)[:, -1]
        fed = mx.argmax(logits, axis=-1, keepdims=True)
        tokens.append(int(fed[0, 0].item()))  # type: ignore[arg-type]
    num_bytes = sum(layer.nbytes for layer in cache)
    if group.rank() == 0:
        sys.stdout.write(
            "RESULT " + json.dumps({"ranks": group.size(), "tokens": tokens, "kv_bytes": num_bytes}) + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
