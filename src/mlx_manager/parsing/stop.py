"""Stop strings in a growing text: found across token borders, never leaked, not even in part."""

from __future__ import annotations


class StopMatcher:
    """Passes text through until one of `stops` appears in it.

    Text that may be the beginning of a stop string is held back until it is clear that it is not. Of several stop
    strings the one that is complete first ends the text; of those that end together, the longest. So the result does
    not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the text; None while none has."""

    def feed(self, text: str) -> str:
        """Take more text and return what can be shown now. After a match nothing more comes out."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [(self._held.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            end, _, self.matched = min(found)
            position = end - len(self.matched)
            shown, self._held = self._held[:position], ""
            return shown
        num_held = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - num_held
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """The text has ended: return what was held back."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
