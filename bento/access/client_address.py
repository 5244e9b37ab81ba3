"""Addresses: whether a request comes from this machine, and the address under which a client is counted."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import Scope

_PROXY_HEADERS = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"})
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names of this machine."""
_UNKNOWN_ADDRESS = "unknown"
IPV6_PREFIX_BITS = 64
"""Bits of an IPv6 address that are counted: one household or server has a whole /64. More bits let a client escape its rate limit."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address. A text that is no IP address is not loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_direct(scope: Scope) -> bool:
    """Return whether a request was made on this machine, by a program that meant this service.

    A direct request comes in by the loopback address, through no proxy, under a name of this machine, and from no page of another site.
    Without the last two conditions a page in the operator's browser could send requests to an open service.
    """
    server, headers = scope.get("server"), {name: value.decode("latin-1") for name, value in scope["headers"]}
    if server is None or not _is_own_address(server[0]) or not _PROXY_HEADERS.isdisjoint(headers):
        return False
    host, origin = headers.get(b"host", ""), headers.get(b"origin")
    return _host_name(host) in (*LOCAL_HOSTS, server[0]) and (origin is None or _is_origin_of(origin, host))


def _is_origin_of(origin: str, host: str) -> bool:
    """Return whether an Origin header names this host. A text that is no URL names none."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


@lru_cache(maxsize=64)
def _is_own_address(host: str) -> bool:
    """Return whether the server listens on this machine alone. A text that is no IP address is a socket file, or a test client's name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


@lru_cache(maxsize=64)
def _host_name(host: str) -> str | None:
    """Return the name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def find_client_address(scope: Scope) -> str:
    """Return the address that a request comes from: an IPv4 address, the /64 of an IPv6 address, or ``unknown``."""
    client = scope.get("client")
    return _counted_address(client[0]) if client else _UNKNOWN_ADDRESS


@lru_cache(maxsize=1_000)
def _counted_address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _UNKNOWN_ADDRESS
    return str(ipaddress.ip_network((address, IPV6_PREFIX_BITS), strict=False)) if address.version == 6 else str(address)
