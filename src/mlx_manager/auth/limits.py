"""What a key may ask for in a minute and in a day: counted here and in the ledger, told in the usual headers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlx_manager.catalog import ApiKey
from mlx_manager.errors import RateLimited
from mlx_manager.storage.ledger import Ledger

_MINUTE_S = 60.0
_DAY_S = 24 * 3600


@dataclass(frozen=True)
class Allowance:
    """What is left of a key's limits, for the answer's headers. None where there is no limit."""

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
    """Lets the requests of keys through, or not.

    Minutes go by `clock`, which never jumps; days are those of UTC.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._minutes: dict[int, deque[float]] = {}

    def admit(self, key: ApiKey) -> Allowance:
        """Count a request of `key`; one that is refused is not counted."""
        self._ledger.note_use(key.id)
        tokens, requests = self._tokens(key), self._requests(key)
        refusal = None
        if tokens is not None and tokens[1] <= 0:
            refusal = RateLimited(
                f"The API key {key.name!r} has used its {tokens[0]} tokens of this day.", retry_after_s=tokens[2]
            )
        elif requests is not None and requests[1] <= 0:
            limit, _, wait_s = requests
            refusal = RateLimited(f"The API key {key.name!r} allows {limit} requests a minute.", retry_after_s=wait_s)
        elif requests is not None:
            self._minutes[key.id].append(self._clock())
            requests = (requests[0], requests[1] - 1, requests[2])
        return Allowance(requests, tokens, refusal, time.time())

    def _tokens(self, key: ApiKey) -> tuple[int, int, float] | None:
        limit = key.limits.tokens_per_day
        if limit is None:
            return None
        return limit, limit - self._ledger.today(key.id).num_tokens, _DAY_S - time.time() % _DAY_S

    def _requests(self, key: ApiKey) -> tuple[int, int, float] | None:
        """The limit, what is left of it, and when the oldest request of the last minute counts no more."""
        limit = key.limits.requests_per_minute
        if limit is None:
            self._minutes.pop(key.id, None)
            return None
        now_s = self._clock()
        times = self._minutes.setdefault(key.id, deque())
        while times and times[0] <= now_s - _MINUTE_S:
            times.popleft()
        # a limit that was lowered meanwhile may have more behind it
        oldest_s = times[max(len(times) - limit, 0)] if times else now_s
        return limit, limit - len(times), oldest_s + _MINUTE_S - now_s
