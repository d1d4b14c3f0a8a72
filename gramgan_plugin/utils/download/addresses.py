"""Which URLs may be downloaded: not those of this machine and private networks, by name, address, redirect or DNS."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

Connected = Callable[[socket.socket], None]
LONGEST = 8192  # characters of a URL
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # addresses that embed IPv4 addresses


class ForbiddenError(Exception):
    """An address that may not be contacted; ``str(error)`` is the reason."""


def url_problem(url: str) -> str | None:
    """Return why a text is not a URL that may be downloaded, or None."""
    shown = url if len(url) <= 100 else f"{url[:100]}..."
    if len(url) > LONGEST:
        return f"{shown}: longer than {LONGEST} characters"
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        return (
            f"{shown!r}: blanks or control characters in it; a list has one URL a line, or a header url,source,licence"
        )
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError as error:
        return f"{shown}: not a URL ({error})"
    if parts.scheme not in ("http", "https"):
        return f"{shown}: not a URL of http or https"
    if not host or port == 0:
        return f"{shown}: a URL without a host"
    if user is not None:
        return (
            f"{shown.replace(parts.netloc, '...')}: a name or password in the URL, which reports would show; remove it"
        )
    return None


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

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
    """Refuse a URL whose host does not belong to the public internet.

    Args:
        url: an http or https URL.
        by_proxy: a proxy resolves the name, so only names that are clearly private are refused.

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


def guarded_session(allow_private: bool, connected: Connected = lambda opened: None) -> requests.Session:
    """Return a session that refuses connections to non-public addresses, whatever a name resolved to before.

    The system's proxies are used as usual and then make the connections. Passwords in ``.netrc`` are not sent.

    Args:
        allow_private: allow non-public addresses.
        connected: called with each connection that is made, before anything is sent.
    """
    session = _Session()
    session.auth = _no_password
    for scheme in ("http://", "https://"):
        session.mount(scheme, _GuardedAdapter(allow_private, connected))
    return session


class _Session(requests.Session):
    def resolve_redirects(self, *arguments: Any, **options: Any) -> Any:
        """Do not follow redirects: the caller does, since requests would read a redirect's whole content first."""
        return iter(())


def _no_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _refusal(host: str) -> str:
    return f"{host}: an address of this machine or a private network; pass --allow-private to allow it"


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, allow_private: bool, connected: Connected) -> None:
        self.allow_private, self.connected = allow_private, connected
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        _watch_connections(self.poolmanager, self._check_peer)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if not known:
            _watch_connections(manager, self.connected)
        return manager

    def _check_peer(self, opened: socket.socket) -> None:
        address = str(opened.getpeername()[0])
        if not self.allow_private and not is_public(address):
            raise ForbiddenError(_refusal(address))
        self.connected(opened)


def _watch_connections(manager: urllib3.PoolManager, connected: Connected) -> None:
    """Call ``connected`` with each connection before encryption starts; an exception closes the connection."""

    def watched(pool: type[Any]) -> type[Any]:
        class Connection(pool.ConnectionCls):  # type: ignore[name-defined]
            def _new_conn(self) -> socket.socket:
                opened: socket.socket = super()._new_conn()
                try:
                    connected(opened)
                except BaseException:
                    opened.close()
                    raise
                return opened

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in classes.items()}
