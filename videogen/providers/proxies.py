"""Find the proxy for an address in the environment."""

from urllib.request import getproxies_environment, proxy_bypass

import httpx

from videogen.addresses import is_loopback
from videogen.errors import SettingsError
from videogen.providers.sanitize import make_text_safe


def find_proxy(url: httpx.URL) -> httpx.URL | None:
    """Return the proxy for an address, or None for a direct connection. This machine is always connected to directly.

    `HTTPS_PROXY` or `HTTP_PROXY`, else `ALL_PROXY`, in upper or lower case, name a proxy for all hosts except those in
    `NO_PROXY`, which are separated by commas.

    Raises:
        SettingsError: the value of the variable is not a usable proxy.
    """
    proxies = getproxies_environment()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or is_loopback(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    try:
        proxy = httpx.URL(found if "://" in found else f"http://{found}")
    except (httpx.InvalidURL, UnicodeError):
        proxy = httpx.URL("")
    if proxy.scheme not in ("http", "https") or not proxy.host:
        variable = f"{url.scheme.upper()}_PROXY" if proxies.get(url.scheme) else "ALL_PROXY"
        raise SettingsError(f"{variable}: not the address of an HTTP proxy, such as http://proxy.example:3128")
    return proxy


def describe_proxy(proxy: httpx.URL) -> str:
    """Return the address of a proxy for messages, without its password."""
    return make_text_safe(str(proxy.copy_with(userinfo=b"")), most=100)


def make_transport(proxy: httpx.URL | None, **options: object) -> httpx.AsyncHTTPTransport:
    """Return a transport that uses a proxy; `options` are those of `httpx.AsyncHTTPTransport`."""
    return httpx.AsyncHTTPTransport(proxy=None if proxy is None else httpx.Proxy(proxy), **options)  # type: ignore[arg-type]
