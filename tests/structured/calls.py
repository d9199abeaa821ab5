"""Questions that have to be answered by calling a tool: the schemas of this room as the arguments of functions."""

from __future__ import annotations

from tests.structured.schemas import NESTED, OBJECTS, PATTERNS, RECURSIVE, UNIONS, Schema

NUM_CUT_TOKENS = 14
_NEVER_ENDING = ("reference to the root", "mutual")
"""Those that a small model goes on with until its length limit."""
ARGUMENTS: dict[str, Schema] = (
    {
        name: schema
        for name, schema in (OBJECTS | NESTED | PATTERNS | UNIONS | RECURSIVE).items()
        if name not in _NEVER_ENDING and _is_object(schema)
    }
    if False
    else {}
)
