import socket

import pytest
import requests

from gramgan_plugin.utils.download.addresses import (
    ForbiddenError,
    check_host,
    guarded_session,
    is_public,
    url_problem,
)


class TestUrlProblem:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("ftp://a.org/x", "not a URL of http"),
            ("file:///etc/passwd", "not a URL of http"),
            ("javascript:alert(1)", "not a URL of http"),
            ("http:///x", "without a host"),
            ("http://a.org/x y", "blanks or control characters"),
            ("http://a.org/\x1b[2J", "blanks or control characters"),
            ("http://[::1/x", "not a URL"),
            ("http://a.org:x/", "not a URL"),
            ("http://a.org/" + "x" * 9000, "longer than"),
        ],
    )
    def test_exception(self, url: str, problem: str) -> None:
        assert problem in (url_problem(url) or "")

    def test_feature_passwords_are_not_repeated(self) -> None:
        problem = url_problem("http://me:secret@a.org/x")
        assert problem is not None
        assert "secret" not in problem

    def test_feature_good(self) -> None:
        assert url_problem("https://münchen.example/ä%20b.jpg?x=1&y=2#z") is None


class TestIsPublic:
    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
            *("::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1"),
            "x",
        ],
    )
    def test_feature_forbidden(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e"])
    def test_feature_allowed(self, address: str) -> None:
        assert is_public(address)


class TestCheckHost:
    @pytest.mark.parametrize(
        "host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254"]
    )
    def test_feature_in_all_spellings(self, host: str) -> None:
        with pytest.raises(ForbiddenError, match="--allow-private"):
            check_host(f"http://{host}/x", by_proxy=False)

    def test_feature_one_private_address_of_several_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = [(2, 1, 6, "", ("93.184.215.14", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
        with pytest.raises(ForbiddenError):
            check_host("http://example.org/", by_proxy=False)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers[:1])
        check_host("http://example.org/", by_proxy=False)

    def test_feature_by_proxy_only_the_name_counts(self) -> None:
        check_host("http://no-such-host.example/", by_proxy=True)
        for host in ("127.0.0.1", "localhost", "db.internal", "printer.local"):
            with pytest.raises(ForbiddenError):
                check_host(f"http://{host}/", by_proxy=True)


class TestGuardedSession:
    def test_feature_name_that_turns_private(self, server: object) -> None:
        """DNS may answer otherwise the second time: what counts is who was connected to, before anything is sent."""
        url = server.put("/photo", b"x")  # type: ignore[attr-defined]
        with guarded_session(allow_private=False) as session, pytest.raises(ForbiddenError, match=r"127\.0\.0\.1"):
            session.get(url, timeout=5)
        assert not server.log  # type: ignore[attr-defined]

    def test_feature_allowed_and_without_passwords(self, server: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(requests.sessions, "get_netrc_auth", lambda url: ("me", "secret"))
        with guarded_session(allow_private=True) as session:
            response = session.get(server.put("/photo", b"x"), timeout=5)  # type: ignore[attr-defined]
        assert response.content == b"x"
        assert "Authorization" not in response.request.headers
