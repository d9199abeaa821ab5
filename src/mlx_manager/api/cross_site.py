"""Keeps pages of other sites from changing anything here."""

from __future__ import annotations

from fastapi import Request

from mlx_manager.api.errors import CrossSite


async def refuse_other_sites(request: Request) -> None:
    """A web page of another site may send a POST without asking first; browsers then say where it comes from."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise CrossSite(f"Requests of {origin[:80]} are not taken here: this is for this server's own pages.")
