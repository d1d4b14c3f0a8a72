import io
import sys

import pytest

from gramgan_plugin.utils.progress import counted_bytes, tracked
from gramgan_plugin.utils.text import printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTracked:
    def test_feature_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert list(tracked([1, 2, 3], "photo")) == [1, 2, 3]
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.splitlines()[-1].startswith("3/3 photos, ")
        assert captured.err.rstrip().endswith("/s, 0 s left")

    def test_feature_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        assert list(tracked([1, 2], "photo")) == [1, 2]
        assert "100%" in terminal.getvalue()
        assert "\r" in terminal.getvalue()

    def test_feature_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert list(tracked([1, 2], "photo", show=False)) == [1, 2]
        assert capsys.readouterr().err == ""


class TestCountedBytes:
    def test_feature_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        with counted_bytes("vgg19") as report:
            report(1_000_000, 2_500_000)
            assert capsys.readouterr().err == "", "more than a line every ten seconds"
            report(2_500_000, 2_500_000)
        assert capsys.readouterr().err == "vgg19: 2.5 of 2.5 MB\n"

    def test_feature_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A download that starts again goes back."""
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with counted_bytes("vgg19") as report:
            report(2_000_000, None)
            report(1_000_000, 4_000_000)
        assert terminal.getvalue().rstrip().rpartition("\r")[2].startswith("vgg19:  25%")
        assert "1.00M/4.00M" in terminal.getvalue()

    def test_feature_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with counted_bytes("vgg19", show=False) as report:
            report(10, 10)
        assert capsys.readouterr().err == ""


class TestPrintable:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("é 写.png", "é 写.png"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\udcff", "\\udcff")],
    )
    def test_feature(self, text: str, expected: str) -> None:
        assert printable(text) == expected
