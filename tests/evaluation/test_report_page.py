import base64
import csv
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.evaluation import report_page
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.report_page import differences, write_report
from gramgan_plugin.evaluation.statistics import paired_difference

LABELS = {
    "psnr_y": MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB"),
    "lpips_alex": MetricLabel("lpips_alex", "LPIPS (alex)", "lower", 3),
}
FACTS = {"protocol": ["x4", "4 pixels cropped"], "versions": {"torch": "2.9"}, "hashes": {"a.pth": "0f" * 32}}
EVIL = "</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}\u202e"


def _results(models=("bicubic", "gan"), sets=("Set5", "Set14")):
    return [
        SetResult(
            model,
            name,
            {
                "psnr_y": {f"photo{k}": 28.0 + i + k / 2 for k in range(4)},
                "lpips_alex": {f"photo{k}": 0.3 - i / 10 + k / 50 for k in range(4)},
            },
        )
        for name in sets
        for i, model in enumerate(models)
    ]


def _photo():
    return np.ascontiguousarray(skimage.data.chelsea()[..., ::-1])


class _Page(HTMLParser):
    """The tags of a page with their attributes, and the text of its table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.text = [], [], ""
        self.inside = self.is_script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.is_script = tag in ("script", "style")
        if tag in ("td", "th"):
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.is_script = self.is_script and tag not in ("script", "style")
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if not self.is_script:
            self.text += data
        if self.inside:
            self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def _write(folder, results=None, pictures=None, **options):
    write_report(folder, results or _results(), LABELS, facts=FACTS, pictures=pictures or {}, **options)
    return _Page((folder / "index.html").read_text(encoding="utf-8"))


class TestFiles:
    def test_all_are_written(self, tmp_path):
        _write(tmp_path / "new" / "report")
        names = {file.name for file in (tmp_path / "new" / "report").iterdir()}
        assert names == {"index.html", "table.md", "table.tex", "per_image.csv", "results.json"}
        assert "| Set5 | 4 | gan | **29.75** |" in (tmp_path / "new/report/table.md").read_text(encoding="utf-8")
        assert "\\toprule" in (tmp_path / "new/report/table.tex").read_text(encoding="utf-8")
        with (tmp_path / "new/report/per_image.csv").open(encoding="utf-8") as stream:
            assert len(list(csv.DictReader(stream))) == 2 * 2 * 2 * 4

    def test_results_as_data(self, tmp_path):
        _write(tmp_path)
        data = json.loads((tmp_path / "results.json").read_text())
        assert data["rows"] == [row for result in _results() for row in result.rows()]
        assert data["facts"] == FACTS
        first = data["differences"][0]
        assert (first["model"], first["baseline"], first["dataset"], first["metric"]) == (
            "gan",
            "bicubic",
            "Set5",
            "psnr_y",
        )
        assert first["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 4, "method": "percentile"}

    def test_exception(self, tmp_path):
        with pytest.raises(ValueError, match="no results"):
            write_report(tmp_path, [], LABELS, facts={}, pictures={})


class TestDifferences:
    def test_each_model_and_metric(self):
        results = _results(("a", "b", "c"))
        found = differences(results, ["psnr_y", "lpips_alex"], "b")
        assert [(one.dataset, one.model, one.metric) for one in found[:4]] == [
            ("Set5", "a", "psnr_y"),
            ("Set5", "a", "lpips_alex"),
            ("Set5", "c", "psnr_y"),
            ("Set5", "c", "lpips_alex"),
        ]
        assert len(found) == 8
        values = [result.per_image["psnr_y"] for result in results[:2]]
        assert found[0].difference == paired_difference(*values)

    def test_no_image_in_common(self):
        results = [SetResult("a", "S", {"psnr_y": {"x": 1.0}}), SetResult("b", "S", {"psnr_y": {"y": 1.0}})]
        assert differences(results, ["psnr_y"], "a")[0].difference is None
        assert differences(results, ["psnr_y"], "missing") == []


class TestPage:
    def test_one_file_without_network(self, tmp_path):
        page = _write(tmp_path, pictures={"Set5": {"photo0": {"gan": _photo(), "GT": _photo()}}})
        policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag)
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert not page.all("link")
        assert all(set(tag) == set() for tag in page.all("script"))
        sources = [tag["src"] for tag in page.all("img") if "src" in tag]
        assert len(sources) == 2
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        assert not re.findall(r"url\(|@import|https?://", page.rawdata + (tmp_path / "index.html").read_text("utf-8"))

    def test_values_and_differences(self, tmp_path):
        page = _write(tmp_path)
        assert {"28.75", "29.75", "0.330", "0.230"} <= {*page.cells}
        texts = [" ".join(cell.split()) for cell in page.cells]
        assert "+1.00 better [+1.00, +1.00] percentile" in texts
        assert "-0.100 better [-0.100, -0.100]" in " ".join(texts)
        assert "Difference to bicubic" in page.text
        reverse = _write(tmp_path, baseline="gan")
        assert "+0.100 worse" in " ".join(" ".join(reverse.cells).split())

    def test_published_scores_and_facts(self, tmp_path):
        page = _write(tmp_path)
        assert {"ESRGAN", "31.22", "0.8104", "28.42"} <= {*page.cells}
        assert "not remeasured here" in page.text
        for text in ("x4", "4 pixels cropped", "torch", "2.9", "0f" * 32):
            assert text in page.text
        assert len(page.all("rect")) == 6, "three published points in each set's plot"
        assert len(page.all("circle")) == 4
        other = _write(tmp_path, scale=2)
        assert "ESRGAN" not in other.cells
        assert not other.all("rect")

    def test_what_was_not_measured(self, tmp_path):
        results = _results()
        results[1].per_image["lpips_alex"].pop("photo3")
        results[1].left_out["lpips_alex"] = {"photo3": "too small"}
        page = _write(tmp_path, results)
        assert "gan: Set5: photo3 is left out of the mean of lpips_alex: too small" in page.text
        assert "n = 3" in page.text

    def test_no_metric(self, tmp_path):
        page = _write(tmp_path, [SetResult("a", "S", left_out={"psnr_y": {"x": "broken"}})])
        assert "No metric was measured." in page.text
        assert "broken" in page.text

    def test_names_are_escaped(self, tmp_path):
        label = MetricLabel("psnr_y", EVIL, "higher", 2, EVIL)
        results = [SetResult(EVIL + str(i), EVIL, {"psnr_y": {EVIL: 1.0 + i}}, lq=EVIL) for i in range(2)]
        results[0].left_out["psnr_y"] = {EVIL + "2": EVIL}
        pictures = {EVIL: {EVIL: {EVIL: _photo(), "GT": _photo(), EVIL + "small": _photo()[:9]}}}
        facts = {EVIL: {EVIL: EVIL}, "list": [EVIL]}
        write_report(tmp_path, results, {"psnr_y": label}, facts=facts, pictures=pictures)
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        page = _Page(text)
        assert len(page.all("script")) == 1
        assert text.count("</script>") == 1
        assert not [tag for _, tag in page.tags if any(name.startswith("on") for name in tag)]
        assert not [tag for tag in page.all("img") if tag.get("src") == "x"]
        assert "{{ 7*7 }}" in page.text
        assert "\u202e" not in text
        assert page.text.count("<img src=x onerror=alert(1)>") > 10

    def test_undecodable_names(self, tmp_path):
        name = "caf\udce9"
        _write(tmp_path, [SetResult(name, name, {"psnr_y": {name: 1.0}})], {name: {name: {name: _photo()}}})
        for file in tmp_path.iterdir():
            assert "caf\\udce9" in file.read_text(encoding="utf-8").replace("\\textbackslash{}", "\\").replace(
                "\\\\", "\\"
            )


class TestPictures:
    def test_the_pixels_are_those_of_the_image(self, tmp_path):
        photo = _photo()
        page = _write(tmp_path, pictures={"Set14": {"photo1": {"gan": photo // 2, "GT": photo}}})
        images = [tag for tag in page.all("img") if "src" in tag]
        assert [tag["alt"] for tag in images] == ["gan", "GT"]
        for tag, expected in zip(images, (photo // 2, photo), strict=True):
            data = np.frombuffer(base64.b64decode(tag["src"].partition(",")[2]), np.uint8)
            assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), expected)

    def test_the_crop_is_where_gt_has_detail(self, tmp_path):
        image = np.full((200, 300, 3), 128, np.uint8)
        image[90:162, 210:282] = _photo()[100:172, 100:172]
        page = _write(tmp_path, pictures={"Set5": {"photo0": {"gan": image // 2, "GT": image}}})
        style = next(tag["style"] for tag in page.all("div") if tag.get("class") == "crops")
        x, y, width, height, full = (int(value) for value in re.findall(r"\d+", style))
        assert abs(x - 210) <= 2
        assert abs(y - 90) <= 2
        assert (width, height, full) == (72, 72, 300)

    def test_small_and_large_images(self, tmp_path):
        large = np.tile(_photo(), (3, 2, 1))
        page = _write(tmp_path, pictures={"Set5": {"small": {"GT": _photo()[:20, :30]}, "large": {"GT": large}}})
        assert [tag["data-width"] for tag in page.all("figure")] == ["30", "768"]
        assert "768x768 pixels of it are on this page" in page.text

    def test_other_sizes_are_not_shown(self, tmp_path):
        images = {"x2": _photo()[::2, ::2], "GT": _photo()}
        page = _write(tmp_path, pictures={"Set5": {"photo0": images}})
        assert [tag["alt"] for tag in page.all("img") if "src" in tag] == ["GT"]
        assert "of another size, not shown: x2" in page.text

    def test_total_size_is_limited(self, tmp_path, monkeypatch):
        photo = _photo()
        monkeypatch.setattr(report_page, "MOST_BYTES", 2 * len(report_page._data_url(photo, "photo")) + 9)
        pictures = {name: {f"photo{k}": {"GT": photo} for k in range(2)} for name in ("Set14", "Set5", "other")}
        page = _write(tmp_path, pictures=pictures)
        named = re.findall(r"Set\d+: photo\d", page.text)
        assert named == ["Set5: photo1", "Set14: photo1", "Set5: photo0", "Set14: photo0"], "left out, then shown"
        assert "Pictures of 2 images are left out" in page.text
        assert len([tag for tag in page.all("img") if "src" in tag]) == 2
