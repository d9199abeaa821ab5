"""Numbers in queries that the database is asked with."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

LAST_ID = 2**31 - 1
"""The largest that every database takes as a row's id."""
BeforeQuery = Annotated[int | None, Query(ge=1, le=LAST_ID)]
"""The id before which a list goes on."""
