"""The servers answered by scripts, for tests of what can be seen of them."""

from tests.http.conftest import serve

__all__ = ["serve"]
