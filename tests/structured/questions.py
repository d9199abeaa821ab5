"""What is asked: every schema greedily and with a draw, some cut short, and others without any grammar among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mlx_manager.ir import GenerationRequest
from tests.structured.asking import of_schema, question
from tests.structured.schemas import NESTED, SCHEMAS

NUM_CUT_TOKENS = 6
CUT = {f"cut: {name}": schema for name, schema in NESTED.items() if name != "two deep"}
_TEXTS = (
    "What is the capital of France?",
    "Name three fruits.",
    "Write one sentence about the sea.",
    "How many legs does a spider have?",
)
BYSTANDERS: dict[str, GenerationRequest] = {
    **{f"bystander {i}": question(f"bystander-{i}", text, max_tokens=24) for i, text in enumerate(_TEXTS)},
    **{
        f"drawn bystander {i}": question(f"drawn-bystander-{i}", text, max_tokens=24, temperature=0.9, seed=i)
        for i, text in enumerate(_TEXTS)
    },
}


def _greedy(name: str) -> GenerationRequest:
    return question(f"greedy {name}", f"Give an example of: {name}. Answer in JSON.", of_schema(SCHEMAS[name]))


def _drawn(index: int, name: str) -> GenerationRequest:
    text = f"Make up a JSON value for: {name}."
    return question(f"drawn {name}", text, of_schema(SCHEMAS[name]), temperature=0.8, top_p=0.95, seed=index)


def _interleaved() -> Iterator[tuple[str, GenerationRequest]]:
    """Bystanders and those cut short spread among the rest, so that they share steps with them."""
    others = itertools.chain(
        BYSTANDERS.items(),
        (
            (name, question(name, f"Example of: {name}.", of_schema(schema), max_tokens=NUM_CUT_TOKENS))
            for name, schema in CUT.items()
        ),
    )
    for index, name in enumerate(SCHEMAS):
        yield f"greedy {name}", _greedy(name)
        if index % 4 == 0:
            yield from itertools.islice(others, 1)
        yield f"drawn {name}", _drawn(index, name)
    yield from others


QUESTIONS = dict(_interleaved())
