"""Tell public IP addresses from private ones.

Reference images and outputs follow the same rule. The tables are our own, because the properties of `ipaddress` change
with the version of Python: `192.0.0.192` is global for 3.11.7.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

IPv4Network = ipaddress.IPv4Network
IPv6Network = ipaddress.IPv6Network

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host and a port, returns all its addresses; raises `OSError` when there are none."""

NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a carrier; 100.100.100.200 is Alibaba's metadata service
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # public by its number, but in every Azure machine it is the host's own service
            "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle's metadata service
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays from 6to4, deprecated
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
        ),
    )
)
"""Source: https://www.iana.org/assignments/iana-ipv4-special-registry, read 2026-10; the services in 192.0.0.0/24 that
it calls globally reachable serve no files, so the block is listed as a whole."""
GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""All assigned addresses. Source: https://www.iana.org/assignments/ipv6-address-space"""
NOT_PUBLIC_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo and ORCHID among them
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
"""Parts of `GLOBAL_UNICAST_V6` that are not public. Source: https://www.iana.org/assignments/iana-ipv6-special-registry"""
WRAPPING_V6 = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""Networks whose last four bytes are an IPv4 address: NAT64, and the old IPv4-compatible form."""


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host from the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def resolve_numeric_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host that is written as a number, in any notation, and nothing for a name.

    The network is not used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_loopback(host: str) -> bool:
    """Return whether a host, given as in a URL, is this machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def is_public(address: str) -> bool:
    """Return whether a text is an IP address on the public internet.

    An IPv6 address that wraps an IPv4 address is judged by the latter.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _unwrap(ip)
        if inner is None:
            return ip in GLOBAL_UNICAST_V6 and not any(ip in network for network in NOT_PUBLIC_V6)
        ip = inner
    return not any(ip in network for network in NOT_PUBLIC_V4)


def _unwrap(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    wrapped = ip.ipv4_mapped or ip.sixtofour
    if wrapped is None and any(ip in network for network in WRAPPING_V6):
        wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return wrapped
