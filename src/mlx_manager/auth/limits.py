"""What a key and an account may ask for in a minute and in a day: counted here and in the ledger, told in headers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlx_manager.errors import RateLimited
from mlx_manager.ir import Caller, Purse
from mlx_manager.storage.ledger import Ledger

_MINUTE_S = 60.0
_DAY_S = 24 * 3600
_Row = tuple[int, int, float]
"""A limit, what remains of it, and seconds until there is all of it again."""


@dataclass(frozen=True)
class Allowance:
    """What is left of the limits, for the answer's headers. None where there is no limit."""

    requests: tuple[int, int, float] | None = None
    """Limit, what remains, and seconds until there is all of it again."""
    tokens: tuple[int, int, float] | None = None
    refusal: RateLimited | None = None
    """To be raised, where the limits allow no more."""
    counted_unix_s: float = 0.0

    def openai_headers(self) -> dict[str, str]:
        """As OpenAI names them."""
        rendered: dict[str, str] = {}
        for name, (limit, remaining, reset_s) in self._rows():
            rendered[f"x-ratelimit-limit-{name}"] = str(limit)
            rendered[f"x-ratelimit-remaining-{name}"] = str(max(remaining, 0))
            rendered[f"x-ratelimit-reset-{name}"] = f"{reset_s:.0f}s"
        return rendered

    def anthropic_headers(self) -> dict[str, str]:
        """As Anthropic names them, with times in the form of RFC 3339."""
        rendered: dict[str, str] = {}
        for name, (limit, remaining, reset_s) in self._rows():
            # rounded up: who asks again at that time is not to be too early
            reset = datetime.fromtimestamp(math.ceil(self.counted_unix_s + reset_s), UTC)
            rendered[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            rendered[f"anthropic-ratelimit-{name}-remaining"] = str(max(remaining, 0))
            rendered[f"anthropic-ratelimit-{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
        return rendered

    def _rows(self) -> list[tuple[str, tuple[int, int, float]]]:
        rows = (("requests", self.requests), ("tokens", self.tokens))
        return [(name, row) for name, row in rows if row is not None]


class KeyMeter:
    """Lets the requests of keys and accounts through, or not.

    Minutes go by `clock`, which never jumps; days are those of UTC.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._minutes: dict[str, deque[float]] = {}

    def admit(self, caller: Caller) -> Allowance:
        """Count a request of `caller`; one that is refused is not counted. The headers tell of the tightest limits."""
        if caller.key_id is not None:
            self._ledger.note_use(caller.key_id)
        tokens = [(self._tokens(purse), purse) for purse in caller.purses if purse.tokens_per_day is not None]
        requests = [(self._requests(purse), purse) for purse in caller.purses if purse.requests_per_minute is not None]
        refusal = _refusal(tokens, requests)
        if refusal is None:
            for index, ((limit, left, reset_s), purse) in enumerate(requests):
                self._minutes[purse.place].append(self._clock())
                requests[index] = ((limit, left - 1, reset_s), purse)
        return Allowance(_tightest(requests), _tightest(tokens), refusal, time.time())

    def _tokens(self, purse: Purse) -> _Row:
        limit = purse.tokens_per_day or 0
        return limit, limit - self._ledger.today(purse.place).num_tokens, _DAY_S - time.time() % _DAY_S

    def _requests(self, purse: Purse) -> _Row:
        """The limit, what is left of it, and when the oldest request of the last minute counts no more."""
        limit = purse.requests_per_minute or 0
        now_s = self._clock()
        times = self._minutes.setdefault(purse.place, deque())
        while times and times[0] <= now_s - _MINUTE_S:
            times.popleft()
        # a limit that was lowered meanwhile may have more behind it
        oldest_s = times[max(len(times) - limit, 0)] if times else now_s
        return limit, limit - len(times), oldest_s + _MINUTE_S - now_s


def _refusal(tokens: list[tuple[_Row, Purse]], requests: list[tuple[_Row, Purse]]) -> RateLimited | None:
    for (limit, left, wait_s), purse in tokens:
        if left <= 0:
            return RateLimited(f"The {purse.whose} has used its {limit} tokens of this day.", retry_after_s=wait_s)
    for (limit, left, wait_s), purse in requests:
        if left <= 0:
            return RateLimited(f"The {purse.whose} allows {limit} requests a minute.", retry_after_s=wait_s)
    return None


def _tightest(rows: list[tuple[_Row, Purse]]) -> _Row | None:
    return min((row for row, _ in rows), key=lambda row: row[1], default=None)
