"""Addresses: whether a request comes from this machine or another site's page, its trusted proxies, and the address of its client."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import Scope

from finrisk_assets.settings import SettingsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A network of client addresses; a single address is a network of its own."""
_PROXY_HEADERS = (b"forwarded", b"x-forwarded-", b"x-real-ip", b"via")
"""Beginnings of the headers by which a proxy names itself."""
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

    A direct request comes in by the loopback address, through no proxy that says so, and under a name of this machine. Without the last
    condition a page could reach an open service under a name that its own site resolves to this machine (DNS rebinding).
    """
    server, headers = scope.get("server"), dict(scope["headers"])
    if server is None or not _is_own_address(server[0]) or any(name.startswith(_PROXY_HEADERS) for name in headers):
        return False
    return _host_name(headers.get(b"host", b"").decode("latin-1")) in (*LOCAL_HOSTS, server[0])


def is_cross_site(scope: Scope) -> bool:
    """Return whether a page of another origin sent a request, as far as the browser says so.

    A browser names the page's relation to this service in Sec-Fetch-Site, over HTTPS and to this machine, and the page's origin in Origin,
    except of a plain GET. A page of this site, but of another host name or port, is refused as well.
    """
    headers = dict(scope["headers"])
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    is_own_origin = origin is not None and origin.partition(b"://")[2] == headers.get(b"host")
    if origin is not None and not is_own_origin:
        return True
    return site == b"cross-site" or (site == b"same-site" and not is_own_origin)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of FINRISK_TRUSTED_PROXIES: addresses and networks, separated by commas.

    Raises
    ------
    SettingsError
        If a part is neither.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(
            f"FINRISK_TRUSTED_PROXIES={text!r} cannot be read: {error}; set addresses or networks, such as 10.0.0.7,10.1.0.0/16"
        ) from None


def is_within(host: str, networks: tuple[Network, ...]) -> bool:
    """Return whether an address belongs to one of these networks. A text that is no IP address does not."""
    address = _parse_address(host)
    return address is not None and any(address in network for network in networks)


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
    address = _parse_address(host)
    if address is None:
        return _UNKNOWN_ADDRESS
    return str(ipaddress.ip_network((address, IPV6_PREFIX_BITS), strict=False)) if address.version == 6 else str(address)


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address; None for another text. A socket of both versions maps an IPv4 address into IPv6, where all would share a /64."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address
