import numpy as np
import pytest
import skimage.data
import torch
from basicsr.utils.matlab_functions import imresize

from gramgan_plugin.data.batch import to_model_batch
from tests.functional.matlab_reference import matlab_uint8

CPU = torch.device("cpu")


def coffee(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(skimage.data.coffee()[:height, :width].copy()).permute(2, 0, 1)


class TestToModelBatch:
    def test_smoke(self) -> None:
        batch = {"lq": torch.full((2, 3, 4, 4), 51, dtype=torch.uint8), "gt_path": ["a", "b"]}
        result = to_model_batch(batch, CPU)
        assert result["lq"].dtype == torch.float32
        assert torch.equal(result["lq"], torch.full((2, 3, 4, 4), 51 / 255))
        assert result["gt_path"] == ["a", "b"]
        assert batch["lq"].dtype == torch.uint8

    def test_feature_equals_upstreams_floats(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
        expected = torch.from_numpy(levels.numpy().astype("float32") / 255.0)
        assert torch.equal(to_model_batch({"gt": levels, "lq": levels}, CPU)["gt"], expected)

    def test_feature_kernels_are_left_to_the_model(self) -> None:
        """A batch of BasicSR's RealESRGANDataset: no LQ is made, and what makes it stays."""
        kernels = {key: torch.rand(1, 21, 21) for key in ("kernel1", "kernel2", "sinc_kernel")}
        result = to_model_batch({"gt": torch.rand(1, 3, 16, 16), **kernels}, torch.device("meta"))
        assert "lq" not in result
        assert {result[key].device.type for key in ("gt", *kernels)} == {"meta"}

    def test_feature_floats_are_kept(self) -> None:
        lq, gt = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 16, 16)
        result = to_model_batch({"lq": lq, "gt": gt}, CPU)
        assert torch.equal(result["lq"], lq)
        assert torch.equal(result["gt"], gt)

    @pytest.mark.parametrize("as_floats", [False, True])
    @pytest.mark.parametrize("batched", [False, True])
    def test_feature_makes_lq(self, batched: bool, as_floats: bool) -> None:
        gt = coffee(64, 80)
        expected = (imresize(gt.float() / 255, 1 / 4) * 255).round().clamp(0, 255) / 255
        given = gt.float() / 255 if as_floats else gt
        batch = {"gt": given[None] if batched else given, "scale": torch.tensor([4]) if batched else 4}
        result = to_model_batch(batch, CPU)
        lq = result["lq"][0] if batched else result["lq"]
        assert lq.shape == (3, 16, 20)
        assert (lq - expected).abs().max() < 1.1 / 255
        assert ((lq - expected).abs() > 1e-6).double().mean() < 1e-3
        assert torch.equal(result["gt"], (gt.float() / 255).view_as(result["gt"]))

    def test_feature_margin(self) -> None:
        whole = coffee(160, 160)
        lq = to_model_batch({"gt": whole[None], "scale": 4}, CPU)["lq"]
        window = slice(64, 96)
        crop = whole[None, :, 48:112, 48:112]
        batch = {"gt": crop, "scale": torch.tensor([4]), "gt_margin": torch.tensor([16])}
        result = to_model_batch(batch, CPU)
        assert torch.equal(result["lq"], lq[..., 16:24, 16:24])
        assert torch.equal(result["gt"], whole[None, :, window, window].float() / 255)

    @pytest.mark.parametrize("transposed", [None, [False, True, True]])
    def test_feature_lq_of_uint8(self, transposed: list[bool] | None) -> None:
        """What was transposed for training has the LQ of the photo as it lay, transposed."""
        photos = [skimage.data.coffee()[y : y + 64, y : y + 64] for y in (0, 90, 200)]
        turn = transposed or [False] * 3
        given = [photo.transpose(1, 0, 2) if turned else photo for photo, turned in zip(photos, turn, strict=True)]
        batch = {"gt": torch.from_numpy(np.stack(given)).permute(0, 3, 1, 2), "scale": torch.tensor([4] * 3)}
        batch |= {"lq_kind": ["matlab-uint8"] * 3}
        if transposed is not None:
            batch["gt_transposed"] = torch.tensor(transposed)
        result = to_model_batch(batch, CPU)
        assert result.keys() == {"gt", "lq"}
        for lq, photo, turned in zip(result["lq"], photos, turn, strict=True):
            expected = matlab_uint8(photo, 4)
            expected = expected.transpose(1, 0, 2) if turned else expected
            assert np.array_equal((lq * 255).round().permute(1, 2, 0).numpy(), expected)

    def test_feature_twice_changes_nothing(self) -> None:
        batch = {"gt": coffee(64, 64)[None], "scale": torch.tensor([4]), "gt_margin": torch.tensor([16])}
        once = to_model_batch(batch, CPU)
        twice = to_model_batch(once, CPU)
        assert once.keys() == twice.keys() == {"gt", "lq"}
        assert once["gt"].shape[-1] == 32
        assert all(torch.equal(once[key], twice[key]) for key in once)

    def test_exception(self) -> None:
        gt = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
        with pytest.raises(ValueError, match="no 'scale'"):
            to_model_batch({"gt": gt}, CPU)
        with pytest.raises(ValueError, match="scale: one value"):
            to_model_batch({"gt": gt, "scale": torch.tensor([2, 4])}, CPU)
        with pytest.raises(ValueError, match="multiples"):
            to_model_batch({"gt": gt[..., :15], "scale": 4}, CPU)
        with pytest.raises(ValueError, match="lq_kind: one value"):
            to_model_batch({"gt": gt, "scale": 4, "lq_kind": ["matlab-uint8", "matlab-bicubic"]}, CPU)

    @pytest.mark.gpu
    @pytest.mark.parametrize("kind", ["matlab-bicubic", "matlab-uint8"])
    @pytest.mark.parametrize("scale", [2, 4, 8])
    def test_dtype_gpu_equals_cpu(self, scale: int, kind: str) -> None:
        batch = {"gt": coffee(320, 560)[None], "scale": scale, "lq_kind": kind}
        result = to_model_batch(batch, torch.device("cuda"))
        assert result["lq"].is_cuda
        expected = to_model_batch(batch, CPU)
        assert torch.equal(result["lq"].cpu(), expected["lq"])
        assert torch.equal(result["gt"].cpu(), expected["gt"])
