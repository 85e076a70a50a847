"""Trusted certificates for all connections: those that the environment names, else those of httpx."""

import os
import ssl
from pathlib import Path

from videogen.errors import SettingsError

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The first variable that is set counts. Where a proxy inspects TLS, it names the company's certificates."""


def load_certificates() -> ssl.SSLContext:
    """Return the context for verifying servers. Creating it takes 20 ms, so keep it.

    Raises `SettingsError` if the environment names a file or a folder that cannot be used.
    """
    import httpx

    for name in VARIABLES:
        if place := os.environ.get(name):
            return _load(name, place)
    return httpx.create_ssl_context(trust_env=False)


def _load(name: str, place: str) -> ssl.SSLContext:
    try:
        if Path(place).is_dir():
            return ssl.create_default_context(capath=place)
        return ssl.create_default_context(cafile=place)
    except ssl.SSLError as exc:
        raise SettingsError(f"{name}: {place} is not a PEM file of certificates") from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SettingsError(f"{name}: the certificates in {place} cannot be read: {reason}") from exc
