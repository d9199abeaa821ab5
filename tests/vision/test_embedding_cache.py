"""What is kept of images is bounded in bytes; the least recently used goes first."""

from __future__ import annotations

import mlx.core as mx

from mlx_manager.models.sight import EmbeddingCache, Embeddings


def embeddings(num_rows: int, num_layers: int = 0) -> Embeddings:
    """16 bytes a row, and as many for each layer."""
    return Embeddings(mx.zeros((num_rows, 4)), tuple(mx.zeros((num_rows, 4)) for _ in range(num_layers)))


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(max_bytes=16 * 10)
    for name in (b"a", b"b"):
        cache.put(name, embeddings(4))
    assert cache.get(b"a") is not None
    cache.put(b"c", embeddings(4))
    assert [name for name in (b"a", b"b", b"c") if cache.get(name) is not None] == [b"a", b"c"]
    assert cache.nbytes == 2 * 16 * 4


def test_what_is_added_behind_layers_counts() -> None:
    cache = EmbeddingCache(max_bytes=16 * 10)
    cache.put(b"a", embeddings(4))
    cache.put(b"deep", embeddings(2, num_layers=3))
    assert cache.get(b"a") is None
    assert cache.nbytes == 16 * 2 * 4


def test_what_does_not_fit_is_not_kept_and_drives_nothing_out() -> None:
    cache = EmbeddingCache(max_bytes=16 * 10)
    cache.put(b"a", embeddings(4))
    cache.put(b"large", embeddings(11))
    assert cache.get(b"large") is None
    assert cache.get(b"a") is not None
    nothing = EmbeddingCache(max_bytes=0)
    nothing.put(b"a", embeddings(1))
    assert (nothing.get(b"a"), nothing.nbytes) == (None, 0)
