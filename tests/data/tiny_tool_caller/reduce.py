"""How the files beside this one were made: the trained model, its vocabulary cut down to the tokens that it knows.

usage: python reduce.py COMPACT_DIR QWEN3_TOKENIZER_DIR
COMPACT_DIR holds config.json and compact.safetensors as they were trained, QWEN3_TOKENIZER_DIR tokenizer.json and
tokenizer_config.json of Qwen3. What is kept: the tokens with a trained row, all that they are merged from, every single
byte, and the added tokens. Text of known tokens is so split as the whole tokenizer splits it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx


def main(compact: Path, qwen3: Path, folder: Path) -> None:
    """Write the model folder."""
    weights: Any = mx.load(str(compact / "compact.safetensors"))
    rows, known_ids = weights.pop("embed.rows"), weights.pop("embed.ids").tolist()
    tokenizer = json.loads((qwen3 / "tokenizer.json").read_text())
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in tokenizer["model"]["merges"]
    ]
    kept = closure({token for token, token_id in vocab.items() if token_id in known_ids or len(token) == 1}, merges)
    in_order = sorted(kept, key=vocab.__getitem__)
    added = tokenizer["added_tokens"]
    new_ids = {vocab[token]: index for index, token in enumerate(in_order)}
    new_ids |= {token["id"]: len(in_order) + index for index, token in enumerate(added)}
    tokenizer["model"]["vocab"] = {token: new_ids[vocab[token]] for token in in_order}
    tokenizer["model"]["merges"] = [f"{a} {b}" for a, b in merges if {a, b, a + b} <= kept]
    tokenizer["added_tokens"] = [token | {"id": new_ids[token["id"]]} for token in added]
    config = json.loads((compact / "config.json").read_text())
    config["vocab_size"] = len(new_ids)
    config["eos_token_id"] = [new_ids[token_id] for token_id in config["eos_token_id"]]
    config["bos_token_id"] = new_ids[config["bos_token_id"]]
    table = mx.zeros((len(new_ids), config["hidden_size"]), dtype=mx.float16)
    table[mx.array([new_ids[token_id] for token_id in known_ids])] = rows
    mx.save_safetensors(
        str(folder / "model.safetensors"), weights | {"model.embed_tokens.weight": table}, {"format": "mlx"}
    )
    settings = json.loads((qwen3 / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {
        str(new_ids[int(token_id)]): token for token_id, token in settings["added_tokens_decoder"].items()
    }
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings), ("config.json", config)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def closure(tokens: set[str], merges: list[tuple[str, ...]]) -> set[str]:
    """The tokens with all that byte-pair encoding makes on its way to them."""
    kept = set(tokens)
    for first, second in reversed(merges):
        if first + second in kept:
            kept |= {first, second}
    return kept


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(__file__).parent)
