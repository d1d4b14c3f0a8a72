from importlib import metadata
from pathlib import Path

import pytest

from gramgan_plugin import compat
from gramgan_plugin.diagnostics import software
from gramgan_plugin.diagnostics.diagnosis import Level, examine


@pytest.fixture
def installed(monkeypatch):
    """Fake distributions, all of them fine; tests change them."""
    versions = {
        "gramgan-plugin": "0.1.0",
        "torch": "2.8.0+cu128",
        "torchvision": "0.23.0",
        "numpy": "2.1.0",
        "opencv-python": "4.11.0.86",
        "lmdb": "1.6.2",
        "faiss-cpu": "1.11.0",
        "tensorboard": "2.19.0",
        "basicsr": "1.4.2",
    }
    monkeypatch.setattr(software, "installed_version", versions.get)
    monkeypatch.setattr(software, "import_error", lambda module: None)
    monkeypatch.setattr(software, "requirements", lambda name: {})
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"basicsr": ["basicsr"]})
    monkeypatch.setattr(software, "search_path", list)
    return versions


def _bad(topic: str):
    (finding,) = [finding for finding in software.packages() if finding.topic == topic and finding.level != Level.OK]
    assert finding.reason
    assert finding.cure
    return finding


class TestPackages:
    def test_smoke_here(self):
        found = examine("software", software.packages)
        assert not [finding for finding in found if finding.level == Level.PROBLEM]
        assert ("basicsr", "1.4.2") in [(finding.topic, finding.fact) for finding in found]
        assert metadata.version("torch") in [finding.fact for finding in found if finding.topic == "torch"]

    def test_all_is_well(self, installed):
        assert all(finding.level == Level.OK for finding in software.packages())

    @pytest.mark.parametrize(
        ("version", "level"), [((3, 10, 4), "problem"), ((3, 11, 0), "ok"), ((3, 12, 9), "ok"), ((3, 13, 0), "warning")]
    )
    def test_python(self, monkeypatch, version, level):
        monkeypatch.setattr(software, "python_version", lambda: version)
        assert software.python().level == level

    @pytest.mark.parametrize(("name", "version"), [("torch", "2.5.1"), ("torch", "1.13"), ("basicsr", "1.4.3")])
    def test_a_version_that_does_not_do(self, installed, name, version):
        installed[name] = version
        finding = _bad(name)
        assert (finding.level, version in finding.fact) == (Level.PROBLEM, True)

    @pytest.mark.parametrize("name", ["torch", "numpy", "opencv-python", "lmdb", "faiss-cpu", "basicsr"])
    def test_a_package_is_missing(self, installed, name):
        del installed[name]
        finding = _bad(name)
        assert (finding.level, finding.fact) == (Level.PROBLEM, "not installed")
        assert f"pip install '{name}" in finding.cure

    def test_only_tensorboard_may_be_missing(self, installed):
        del installed["tensorboard"]
        assert _bad("tensorboard").level == Level.WARNING
        installed["tb-nightly"] = "2.20.0a20250717"  # what BasicSR asks for
        assert all(finding.level == Level.OK for finding in software.packages())

    def test_a_package_that_does_not_import(self, installed, monkeypatch):
        errors = {"torchvision": "RuntimeError: operator torchvision::nms does not exist"}
        monkeypatch.setattr(software, "import_error", errors.get)
        finding = _bad("torchvision")
        assert "torchvision::nms" in finding.fact
        assert "torch torchvision" in finding.cure

    def test_a_torchvision_for_another_torch(self, installed, monkeypatch):
        bounds = {"torchvision": {"torch": "==2.7.1"}}
        monkeypatch.setattr(software, "requirements", lambda name: bounds.get(name, {}))
        assert "needs torch==2.7.1, 2.8.0+cu128 is installed" in _bad("torchvision").fact
        installed["torch"] = "2.7.1+cpu"
        assert all(finding.level == Level.OK for finding in software.packages())

    def test_the_plugin_itself_is_not_installed(self, installed):
        del installed["gramgan-plugin"]
        assert _bad("gramgan-plugin").level == Level.WARNING


class TestImportError:
    def test_feature(self, tmp_path, monkeypatch):
        assert software.import_error("json") is None
        (tmp_path / "broken_for_doctor.py").write_text("raise OSError('libcudart.so: cannot open\\nmore')")
        monkeypatch.syspath_prepend(tmp_path)
        assert software.import_error("broken_for_doctor") == "OSError: libcudart.so: cannot open"
        assert "No module named" in software.import_error("absent_for_doctor")


class TestShims:
    def test_feature(self, monkeypatch):
        monkeypatch.setattr(compat, "shims_in_force", lambda: [compat.FUNCTIONAL_TENSOR])
        (finding,) = software.shims()
        assert "torchvision 0.17 removed it" in finding.fact
        monkeypatch.setattr(compat, "shims_in_force", list)
        assert list(software.shims()) == []


class TestConflicts:
    def test_two_opencvs(self, installed):
        installed["opencv-python-headless"] = "4.11.0.86"
        finding = _bad("OpenCV")
        assert finding.level == Level.WARNING
        assert finding.cure.startswith("pip uninstall opencv-python opencv-python-headless")

    @pytest.mark.parametrize("providers", [["basicsr", "basicsr-fixed"], ["basicsr-fixed"]])
    def test_two_basicsrs(self, installed, monkeypatch, providers):
        monkeypatch.setattr(metadata, "packages_distributions", lambda: {"basicsr": providers})
        assert (_bad("BasicSR").level, "basicsr-fixed" in _bad("BasicSR").fact) == (Level.PROBLEM, True)

    def test_another_command_on_the_path(self, installed, monkeypatch, tmp_path):
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        for folder in (ours, theirs):
            folder.mkdir()
            (folder / "basicsr").touch()
        monkeypatch.setattr(software.sysconfig, "get_path", lambda name: str(ours))
        monkeypatch.setattr(software, "search_path", lambda: [ours, Path("/nowhere")])
        assert all(finding.level == Level.OK for finding in software.packages())
        monkeypatch.setattr(software, "search_path", lambda: [theirs, ours])
        assert str(theirs / "basicsr") in _bad("command").fact
        assert "instead of this one" in _bad("command").reason
        monkeypatch.setattr(software, "search_path", lambda: [ours, theirs])
        assert "instead of this one" not in _bad("command").reason


class TestFits:
    @pytest.mark.parametrize(
        ("version", "bound", "expected"),
        [
            ("2.6.0", ">=2.6,<3", True),
            ("2.6", ">=2.6.0", True),
            ("2.10", ">=2.9", True),
            ("2.5.9", ">=2.6", False),
            ("3.0", "<3", False),
            ("1.4.2", "==1.4.2", True),
            ("1.4", "==1.4.2", False),
            ("2.9.0a0+git1234", ">=2.6", True),
            ("unknown", ">=2.6", False),
            ("1.0", "", True),
            ("2.5", "<=2.5", True),
            ("2.6", "<=2.5", False),
            ("2.6", "!=2.6", False),
            ("2.6.3", "~=2.6.0", True),
            ("2.7", "~=2.6.0", False),
            ("2.6", "nonsense", False),
        ],
    )
    def test_feature(self, version, bound, expected):
        assert software.fits(version, bound) is expected

    def test_bounds_come_from_the_installation(self):
        bounds = software.requirements("gramgan-plugin")
        assert software.fits("1.4.2", bounds["basicsr"])
        assert not software.fits("2.5.1", bounds["torch"])
        assert "pytest" not in bounds, "what the tests need is not what a run needs"
        assert software.requirements("no-such-distribution-for-test") == {}
