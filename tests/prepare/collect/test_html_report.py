import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from gramgan_plugin.prepare.collect.criteria import Criteria, Measured, Verdict
from gramgan_plugin.prepare.collect.html_report import write_report
from gramgan_plugin.prepare.collect.measuring import thumbnail_file
from gramgan_plugin.prepare.collect.records import Result, write_records

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)> \x1b[2J \udcff {{ 7 * 7 }} ‮ & \n'


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def result(name: str, reason: str | None = None, number: int = 0, **numbers: float) -> Result:
    photo = Measured(f"{number:x}{0:063x}", 1, 800, 600, "JPEG", **numbers)  # type: ignore[arg-type]
    made = Result(name, Verdict(reason, "why" if reason else ""), photo)
    made.kept_as = None if reason else f"{number:x}{0:015x}_x.jpg"
    return made


class TestWriteReport:
    def test_feature_hostile_texts(self, tmp_path: Path) -> None:
        kept = Result(HOSTILE, Verdict(), Measured("0" * 64, 1), "http://a.org/", HOSTILE, HOSTILE)
        kept.kept_as = "0000000000000000_x.jpg"
        failed = Result(HOSTILE, Verdict("failed", HOSTILE))
        write_report(tmp_path, [kept, failed], Criteria(), 10)
        write_records(tmp_path, [kept, failed])
        page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        names = {tag for tag, _ in page.tags}
        assert not names & {"script", "iframe", "object", "form", "link"}
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert page.text.count("<script>alert(1)</script>") == 5
        assert "{{ 7 * 7 }}" in page.text
        assert "\x1b" not in page.text
        assert all(a["href"] in ("#kept", "#failed", "photos/0000000000000000_x.jpg") for t, a in page.tags if t == "a")
        assert "default-src 'none'" in (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_feature_nearest_to_the_limit_first(self, tmp_path: Path) -> None:
        results = [result(f"photo {k}", "blurred", k, sharpness=k / 10) for k in (1, 3, 2, 4)]
        write_report(tmp_path, results, Criteria(), 2)
        text = Page((tmp_path / "report.html").read_text()).text
        assert re.findall(r"photo \d", text) == ["photo 4", "photo 3"]
        assert "2 of them, those nearest to the limit" in text
        assert "0 of 4 photos kept" in text

    def test_feature_thumbnails_of_both_twins(self, tmp_path: Path) -> None:
        results = [result("large", None, 1), result("small", "similar", 2)]
        results[1].verdict = Verdict("similar", "like large", twin=0)
        for number in (1, 2):
            path = thumbnail_file(tmp_path, f"{number:x}{0:063x}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".jpg", np.full((9, 9, 3), number, np.uint8))[1].tobytes())
        write_report(tmp_path, results, Criteria(), 10)
        images = [a["src"] for tag, a in Page((tmp_path / "report.html").read_text()).tags if tag == "img"]
        assert len(images) == 3
        assert images[0] == images[2] != images[1]
        assert all(str(image).startswith("data:image/jpeg;base64,") for image in images)

    def test_feature_shown_ones_are_spread(self, tmp_path: Path) -> None:
        results = [result(f"photo {k}", None, k) for k in range(10)]
        write_report(tmp_path, results, Criteria(), 5)
        text = Page((tmp_path / "report.html").read_text()).text
        assert re.findall(r"photo \d", text) == [f"photo {k}" for k in (0, 2, 4, 6, 8)]


class TestWriteRecords:
    @pytest.mark.parametrize("text", ["=1+1", "@x", "-2", "+2", "\t=1"])
    def test_feature_no_formulas(self, tmp_path: Path, text: str) -> None:
        row = result(text)
        row.licence = text
        write_records(tmp_path, [row])
        cells = (tmp_path / "sources.csv").read_text().splitlines()[1]
        assert f"'{text}" in cells
        assert cells.count("'") == 2
