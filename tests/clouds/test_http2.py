"""Providers that speak HTTP/2: requests share connections, and one that the provider closes is made anew."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_manager.backends.connections import MOST_IN_POOL
from tests.clouds.conftest import Cloud
from tests.clouds.h2_provider import TEXT, H2Provider, h2_provider
from tests.vision.https_server import write_certificate


@pytest.fixture
def modern(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[H2Provider]:
    """A provider over HTTP/2, whose certificate is trusted, and which `gpt` leads to."""
    certificate, key = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with h2_provider(certificate, key) as provider:
        base_url = f"https://localhost:{provider.port}/v1"
        added = cloud.provider(name="modern", base_url=base_url, timeouts={}, max_retries=2)
        assert added.status_code == 201, added.text
        cloud.route("modern", [{"provider": "modern", "model": "ok"}])
        yield provider
        cloud.client.delete("/admin/routes/modern")
        # closes its connections while there is somebody at their other end
        cloud.client.delete("/admin/providers/modern")


def ask(cloud: Cloud, num_requests: int, num_at_once: int) -> None:
    with ThreadPoolExecutor(num_at_once) as threads:
        answers = list(threads.map(lambda _: cloud.ask(), range(num_requests)))
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == ["".join(TEXT)] * num_requests


def test_requests_share_connections(cloud: Cloud, modern: H2Provider) -> None:
    ask(cloud, 6, 1)
    assert modern.protocols == ["h2"]
    ask(cloud, 24, 12)
    assert set(modern.protocols) == {"h2"}
    # pools of a few: the end of an answer may still be on its way when the next request comes
    assert len(modern.protocols) <= 12 // MOST_IN_POOL + 2
    assert modern.num_answers == 30


def test_a_connection_that_the_provider_closes_is_made_anew(cloud: Cloud, modern: H2Provider) -> None:
    modern.goes_away_after = 2
    ask(cloud, 6, 1)
    assert len(modern.protocols) >= 3
