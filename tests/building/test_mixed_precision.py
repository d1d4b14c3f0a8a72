import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.building.mixed_precision import Precision
from gramgan_plugin.errors import OptionError

CPU = torch.device("cpu")


class TestPrecision:
    @pytest.mark.parametrize(("name", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
    def test_feature(self, name, dtype):
        precision = Precision(name, CPU)
        weight = torch.rand(3, 3)
        with precision.autocast():
            assert (weight @ weight).dtype == (dtype or torch.float32)
        assert (precision.scaler is not None) == (name == "fp16")

    def test_exception(self):
        with pytest.raises(OptionError, match=r"^train.precision: 'fp8' "):
            Precision("fp8", CPU)
