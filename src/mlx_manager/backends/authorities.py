"""Which certificate authorities are trusted with the addresses that this server connects to."""

from __future__ import annotations

import ssl

import httpx


def make_tls_context() -> ssl.SSLContext:
    """For clients: the authorities of the system, or of SSL_CERT_FILE and SSL_CERT_DIR, and those that certifi ships.

    The Python of python.org finds none of the system's on macOS.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
