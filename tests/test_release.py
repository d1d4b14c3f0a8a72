"""What must agree for a release: the version in each place, its date, and what the archives hold."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

from gramgan_plugin.version import __version__

ROOT = Path(__file__).parents[1]


def test_one_version_and_date() -> None:
    heading = re.search(
        r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert heading is not None
    assert heading.groups() == (__version__, str(citation["date-released"]))
    assert citation["version"] == __version__ == version("gramgan-plugin")


def test_each_extra_is_for_a_purpose_and_the_tests_have_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {"shards", "mmengine", "video", "heic", "onnx", "openvino", "wandb", "test", "lint", "docs"} == set(extras)
    tested = {re.split(r"[<>=]", one)[0] for one in extras["test"]}
    for name in ("shards", "mmengine", "video", "heic", "onnx"):
        assert {re.split(r"[<>=]", one)[0] for one in extras[name]} <= tested, name
