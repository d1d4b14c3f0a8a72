from types import SimpleNamespace

import pytest

from gramgan_plugin.diagnostics import hardware
from gramgan_plugin.diagnostics.diagnosis import Level, examine
from gramgan_plugin.utils.system import Cores


def _torch(devices: list[SimpleNamespace], cuda: str | None = "12.8") -> SimpleNamespace:
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: bool(devices),
            device_count=lambda: len(devices),
            get_device_properties=devices.__getitem__,
        ),
        version=SimpleNamespace(cuda=cuda),
        get_num_threads=lambda: 7,
    )


@pytest.fixture
def machine(monkeypatch):
    """A machine without a GPU; returns a function that gives it one and the like."""

    def change(torch: SimpleNamespace, driver: bool = False) -> list[hardware.Finding]:
        monkeypatch.setattr(hardware, "import_torch", lambda: torch)
        monkeypatch.setattr(hardware, "has_nvidia_driver", lambda: driver)
        return [finding for finding in hardware.devices() if finding.topic.startswith("GPU")]

    return change


class TestGpus:
    def test_two(self, machine):
        old = SimpleNamespace(name="Tesla T4", total_memory=16 * 2**30, major=7)
        new = SimpleNamespace(name="NVIDIA A100", total_memory=40 * 2**30, major=8)
        first, second = machine(_torch([old, new]))
        assert (first.topic, first.fact[:22]) == ("GPU 0", "Tesla T4, 16.0 GiB, no")
        assert (second.topic, second.fact) == ("GPU 1", "NVIDIA A100, 40.0 GiB, bf16")

    def test_none(self, machine):
        (finding,) = machine(_torch([]))
        assert (finding.level, finding.fact) == (Level.OK, "none; runs use the CPU")

    @pytest.mark.parametrize(("cuda", "reason"), [(None, "CPU only"), ("12.8", "sees none")])
    def test_one_that_torch_does_not_see(self, machine, cuda, reason):
        (finding,) = machine(_torch([], cuda), driver=True)
        assert finding.level == Level.WARNING
        assert reason in finding.reason
        assert finding.cure

    def test_a_broken_driver(self, machine):
        broken = _torch([])
        broken.cuda.is_available = lambda: 1 / 0
        (finding,) = machine(broken)
        assert finding.level == Level.PROBLEM
        assert "ZeroDivisionError" in finding.fact

    def test_no_torch(self, monkeypatch):
        def absent() -> None:
            raise ModuleNotFoundError("No module named 'torch'")

        monkeypatch.setattr(hardware, "import_torch", absent)
        found = examine("devices", hardware.devices)
        assert [finding.topic for finding in found][:2] == ["GPU", "CPU"]
        assert found[1].fact.startswith("unknown threads for torch")


class TestCpu:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("vendor_id : X\nflags\t\t: fpu avx512_bf16 amx_bf16\n", ["AVX-512", "AMX"]),
            ("flags : fpu avx2\nvmx flags : avx512_bf16\n", []),
            ("Features : fp asimd bf16\n", ["Arm's bf16"]),
            ("processor : 0\n", None),
        ],
    )
    def test_bf16(self, tmp_path, text, expected):
        (tmp_path / "cpuinfo").write_text(text)
        assert hardware.bf16_instructions(tmp_path / "cpuinfo") == expected

    def test_bf16_where_the_system_does_not_tell(self, tmp_path, machine, monkeypatch):
        assert hardware.bf16_instructions(tmp_path / "none") is None
        monkeypatch.setattr(hardware, "import_torch", lambda: _torch([]))
        for support, words in ((None, "is unknown"), ([], "no bf16"), (["AMX"], "bf16 by AMX")):
            monkeypatch.setattr(hardware, "bf16_instructions", lambda support=support: support)
            (finding,) = [finding for finding in hardware.devices() if finding.topic == "CPU"]
            assert words in finding.fact
            assert finding.fact.startswith("7 threads for torch")

    def test_threads_and_why(self, monkeypatch):
        monkeypatch.setattr(hardware, "usable_cores", lambda: Cores(1, 64, 1, None))
        for threads, level in ((1, Level.OK), (2, Level.WARNING)):
            monkeypatch.setattr(hardware, "torch_threads", lambda threads=threads: threads)
            monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
            (finding,) = [finding for finding in hardware.devices() if finding.topic == "CPU"]
            assert finding.level == level
            assert "1 core for this process (the affinity mask allows 1 of 64 cores)" in finding.fact
            assert f"OMP_NUM_THREADS={threads}" in finding.fact
        assert finding.cure == "set OMP_NUM_THREADS=1"

    def test_as_torch_sees_it(self):
        torch = pytest.importorskip("torch")
        asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        if asked is None or hardware.bf16_instructions() is None:
            pytest.skip("nothing to compare with here")
        assert ("AVX-512" in hardware.bf16_instructions()) == asked()


class TestSharedMemory:
    @pytest.mark.parametrize(("free", "levels"), [(64 * 2**20, ["warning"]), (2**30, ["ok"]), (None, [])])
    def test_feature(self, monkeypatch, free, levels):
        monkeypatch.setattr(hardware, "shared_memory", lambda: free)
        found = [finding for finding in hardware.devices() if finding.topic == "shared memory"]
        assert [finding.level for finding in found] == levels
