"""Devices that torch is asked for; what was not run: MPS and XPU, which this project's machines do not have."""

from types import SimpleNamespace

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.models.base_model import BaseModel

from gramgan_plugin.building.mixed_precision import Precision
from gramgan_plugin.config import check_options, resolve_options
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.utils import devices
from tests.models.model_options import resolved


class TestFindDevice:
    def test_auto_takes_what_torch_has(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in ("mps", "xpu", "cuda"):
            accelerator = SimpleNamespace(is_available=lambda: True, current_accelerator=lambda k=kind: torch.device(k))
            monkeypatch.setattr(torch, "accelerator", accelerator)
            assert devices.find_device() == torch.device(kind)
        monkeypatch.setattr(torch, "accelerator", SimpleNamespace(is_available=lambda: False))
        assert devices.find_device("auto") == torch.device("cpu")

    @pytest.mark.parametrize("kind", ["mps", "xpu"])
    def test_what_is_not_here(self, kind: str) -> None:
        if getattr(torch, kind).is_available():
            pytest.skip("it is here")
        with pytest.raises(OptionError, match=f"device: {kind}: torch finds none here"):
            devices.find_device(kind)

    def test_unknown(self) -> None:
        with pytest.raises(OptionError, match="device: 'gpu' is not one of auto, cpu"):
            devices.find_device("gpu")


class TestInOptions:
    def test_it_stands_for_num_gpu(self, tiny_options, workdir) -> None:
        del tiny_options["num_gpu"]
        opt = resolved(tiny_options | {"device": "cpu"})
        assert (opt["device"], opt["num_gpu"]) == ("cpu", 0)
        assert GramGANModel(opt).device == torch.device("cpu")

    def test_a_model_has_the_device_of_its_options(self) -> None:
        class Model(HostFixes, BaseModel):
            pass

        common = {"num_gpu": 0, "is_train": False}
        assert Model(common | {"device": "mps"}).device == torch.device("mps"), "upstream's rule says cpu"
        assert Model(common).device == torch.device("cpu"), "under upstream's own loop"

    def test_num_gpu_alone_means_what_it_did(self, tiny_options, workdir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        opt = resolve_options(tiny_options | {"num_gpu": "auto"}, is_train=True)
        assert (opt["device"], opt["num_gpu"]) == ("cuda", 2)
        opt = resolve_options(tiny_options | {"num_gpu": 0}, is_train=True)
        assert (opt["device"], opt["num_gpu"]) == ("cpu", 0)

    def test_not_both(self, tiny_options, workdir) -> None:
        for device, gpus in (("cpu", "auto"), ("auto", 0), ("cuda", 0), ("mps", 1)):
            with pytest.raises(OptionError, match="device: not what num_gpu says"):
                resolve_options(tiny_options | {"device": device, "num_gpu": gpus}, is_train=True)
        recorded = resolve_options(tiny_options | {"device": "cpu", "num_gpu": 0}, is_train=True)
        assert (recorded["device"], recorded["num_gpu"]) == ("cpu", 0), "as a run records them"

    def test_several_processes_need_cuda_or_cpu(self, tiny_options, workdir, monkeypatch: pytest.MonkeyPatch) -> None:
        del tiny_options["num_gpu"]
        accelerator = SimpleNamespace(is_available=lambda: True, current_accelerator=lambda: torch.device("mps"))
        monkeypatch.setattr(torch, "accelerator", accelerator)
        with pytest.raises(OptionError, match="device: mps: several processes compute on cuda or cpu"):
            resolve_options(tiny_options, is_train=True, launcher="pytorch")
        opt = resolve_options(tiny_options, is_train=True)
        assert (opt["device"], opt["num_gpu"]) == ("mps", 0), "BasicSR's own rule then sees no GPU"

    def test_check_knows_it(self, tiny_options) -> None:
        del tiny_options["num_gpu"]
        check_options(tiny_options | {"device": "auto"})
        for wrong in ({"device": "gpu"}, {"device": "cpu", "num_gpu": "auto"}):
            with pytest.raises(OptionError, match=r"^device: "):
                check_options(tiny_options | wrong)


class TestWhatADeviceLacks:
    def test_float64(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def zeros(*size: int, dtype: torch.dtype, device: str) -> torch.Tensor:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

        devices.finest_dtype.cache_clear()
        monkeypatch.setattr(torch, "zeros", zeros)
        assert devices.finest_dtype("mps") == torch.float32
        devices.finest_dtype.cache_clear()

    def test_mixed_precision(self) -> None:
        with pytest.raises(OptionError, match=r"train\.precision: torch .* has no 'bf16' on meta"):
            Precision("bf16", torch.device("meta"))
        assert Precision("fp32", torch.device("meta")).scaler is None

    def test_random_numbers_of_its_own(self) -> None:
        assert devices.random_module(None) is None
        assert devices.random_module(torch.device("cpu")) is None
        assert devices.random_module(torch.device("cuda")) is torch.cuda
