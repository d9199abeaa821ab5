"""Who is trusted with the addresses that the server connects to."""

from __future__ import annotations

import ssl

import pytest

from mlx_manager.backends.authorities import make_tls_context


def test_a_system_without_authorities_is_no_server_without_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    # as Python from python.org finds it on macOS
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")
    assert not ssl.create_default_context().get_ca_certs()
    context = make_tls_context()
    assert len(context.get_ca_certs()) > 50
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
