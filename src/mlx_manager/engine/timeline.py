"""When the engine did what for one request. No tensors here, and no clock: the engine tells the time."""

from __future__ import annotations

from mlx_manager.ir import PrefillChunk, Timings

_MAX_CHUNKS = 64


class Timeline:
    """The times of one request. Written by the engine."""

    def __init__(self, queued_s: float) -> None:
        self.queued_s = queued_s
        self.admitted_s = queued_s
        self.first_token_s = queued_s
        self.last_token_s = queued_s
        self._chunks: list[PrefillChunk] = []

    def add_chunk(self, start_s: float, end_s: float, num_tokens: int) -> None:
        """A step has computed `num_tokens` of the prompt."""
        if len(self._chunks) == _MAX_CHUNKS:
            last = self._chunks.pop()
            start_s, num_tokens = last.start_s, last.num_tokens + num_tokens
        self._chunks.append(PrefillChunk(start_s, end_s, num_tokens))

    def timings_so_far(self, *, received_s: float) -> Timings:
        """Those of a request that was just admitted."""
        return Timings(received_s=received_s, queued_s=self.queued_s, admitted_s=self.admitted_s, prefill=())

    def timings(self, *, received_s: float, parse_s: float) -> Timings:
        """All of it, with what the engine does not know."""
        return Timings(
            received_s=received_s,
            queued_s=self.queued_s,
            admitted_s=self.admitted_s,
            prefill=tuple(self._chunks),
            first_token_s=self.first_token_s,
            last_token_s=self.last_token_s,
            parse_s=parse_s,
        )
