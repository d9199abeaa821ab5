"""Passwords: argon2, away from the event loop, and a check that takes as long for a name that does not exist."""

from __future__ import annotations

import asyncio

from pwdlib import PasswordHash

from mlx_manager.errors import InvalidRequest

MIN_CHARACTERS, MAX_CHARACTERS = 8, 256
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$G2b8pwJEDsXEAtFE0bQV5A$kbcKfCEkTVoSsMMYkSa2mG9HSOcKXlmQzzFPFfV+AX0"
"""A hash that no password has, with the costs of the others."""


class Passwords:
    """Hashes and checks. A hash takes some 50 ms of one core and 64 MiB: at most two are worked on at a time."""

    def __init__(self) -> None:
        self._hasher = PasswordHash.recommended()
        self._turns = asyncio.Semaphore(2)

    async def hash(self, password: str) -> str:
        """The hash to be kept. Raises `InvalidRequest` for a password that is too short or too long."""
        if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
            raise InvalidRequest(f"A password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters.", param="password")
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether `stored` is the hash of `password`; with None the same work is done, and it is not."""
        async with self._turns:
            is_same = await asyncio.to_thread(self._hasher.verify, password[: MAX_CHARACTERS + 1], stored or _NOBODY)
        return is_same and stored is not None
