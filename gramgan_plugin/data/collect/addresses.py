"""No download reaches this machine or the private networks it is in: not by name, address, redirect or DNS."""

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # addresses that stand for those of IPv4


class ForbiddenError(Exception):
    """An address that may not be asked; ``str(error)`` says why."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet.

    Example:
        >>> [is_public(address) for address in ("93.184.215.14", "127.0.0.1", "10.0.0.7", "::ffff:192.168.1.1")]
        [True, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def check_host(url: str, by_proxy: bool) -> None:
    """Refuse a URL whose host is not of the open internet.

    Args:
        url: of http or https.
        by_proxy: a proxy resolves the name, so only what can be told from the name itself is refused.

    Raises:
        ForbiddenError: naming the host.
        OSError: if the name cannot be resolved.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if by_proxy:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if host.lower() == "localhost" or host.lower().endswith((".localhost", ".local", ".internal")):
                raise ForbiddenError(_refusal(host)) from None
            return
        found = {host}
    else:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = {str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not all(is_public(address) for address in found):
        raise ForbiddenError(_refusal(host))


def guarded_session(allow_private: bool) -> requests.Session:
    """A session that asks nothing of an address that is not public, whatever its name resolved to before.

    The system's proxies are used as usual, and then they are who connects. No password of ``.netrc`` is sent.
    """
    session = requests.Session()
    session.auth = _no_password
    if not allow_private:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _GuardedAdapter())
    return session


def _no_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _refusal(host: str) -> str:
    return f"{host}: an address of this machine or a private network; pass --allow-private if that is meant"


def _check_peer(connection: Any) -> None:
    """After the connection is made, before the request is sent."""
    address = str(connection.sock.getpeername()[0])
    if not is_public(address):
        connection.close()
        raise ForbiddenError(_refusal(f"{connection.host} ({address})"))


class _HttpConnection(urllib3.connection.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
