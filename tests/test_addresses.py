"""Which addresses count as public."""

import ipaddress

import pytest

from videogen.addresses import NOT_PUBLIC_V4, NOT_PUBLIC_V6, is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "168.63.129.17",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.0",
    "198.17.255.255",
    "223.255.255.255",
    "2606:2800:220:1::1",
    "2001:200::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::",
]
NOT_PUBLIC = [
    "192.0.0.192",
    "192.0.0.9",
    "168.63.129.16",
    "169.254.169.254",
    "100.100.100.200",
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::c000:c0",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "localhost",
    "",
    "8.8.8.8.",
    "08.8.8.8",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    """Also next to a block that is not, and in an IPv6 wrapping."""
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_every_other_address_is_not(address: str) -> None:
    """Whatever `ipaddress` of this version of Python says of it."""
    assert not is_public(address)


@pytest.mark.parametrize("network", [*NOT_PUBLIC_V4, *NOT_PUBLIC_V6], ids=str)
def test_a_block_is_closed_from_its_first_address_to_its_last(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))
