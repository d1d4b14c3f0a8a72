import subprocess
import sys

import torch

from gramgan_plugin.utils.precision import at_least_float32, autocast_off


class TestAtLeastFloat32:
    def test_dtype(self):
        low, single, double = (torch.zeros(1, dtype=dtype) for dtype in (torch.half, torch.float, torch.double))
        assert [x.dtype for x in at_least_float32(low, low)] == [torch.float32] * 2
        assert [x.dtype for x in at_least_float32(low, single, double)] == [torch.float64] * 3
        assert at_least_float32(torch.zeros(1, dtype=torch.uint8))[0].dtype == torch.float32

    def test_no_copy(self):
        x = torch.zeros(1)
        assert at_least_float32(x)[0] is x


class TestAutocastOff:
    def test_feature(self):
        x = torch.rand(4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (x @ x).dtype == torch.bfloat16
            with autocast_off(x.device):
                assert (x @ x).dtype == torch.float32

    def test_device_without_autocast(self):
        with autocast_off(torch.device("meta")):
            pass


IN_A_PROCESS = """
import torch
from gramgan_plugin.utils.precision import full_float32

torch.set_float32_matmul_precision("high")
torch.backends.cudnn.allow_tf32 = True
with full_float32():
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
assert torch.get_float32_matmul_precision() == "high"
assert torch.backends.cudnn.allow_tf32
"""


class TestFullFloat32:
    def test_feature(self):
        """TF32 is off in matrix products and convolutions, and afterwards as it was.

        In a process of its own: torch refuses these settings once its newer ones have been used.
        """
        done = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
