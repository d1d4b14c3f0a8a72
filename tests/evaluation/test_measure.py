import json

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import tensor2img
from torch.utils.data import DataLoader

from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.enlarge import bicubic_enlarger
from gramgan_plugin.evaluation.measure import measure, to_uint8, write_image

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True, "better": "higher"},
    "ssim": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
}


@pytest.fixture
def loader(sample_pair):
    options = {"name": "set", "phase": "test", "scale": 4, "type": "PairedSRDataset"}
    roots = {"dataroot_gt": str(sample_pair / "test/GT"), "dataroot_lq": str(sample_pair / "test/LQ_x4")}
    return DataLoader(PairedSRDataset(options | roots), batch_size=1)


class TestMeasure:
    def test_values_and_images(self, loader):
        kept = {}
        result = measure(
            bicubic_enlarger(4),
            loader,
            METRICS,
            model="bicubic",
            device=torch.device("cpu"),
            keep=lambda name, image, truth: kept.update({name: (image, truth)}),
        )
        ((image, truth),) = kept.values()
        options = {"crop_border": 4, "test_y_channel": True}
        assert result.per_image["psnr"]["astronaut"] == calculate_psnr(image, truth, **options)
        assert result.per_image["ssim"]["astronaut"] == calculate_ssim(image, truth, **options)
        assert [row["metric"] for row in result.rows()] == ["psnr", "ssim"]

    def test_without_gt(self, loader):
        class NoGt(torch.utils.data.Dataset):
            opt = {"name": "photos"}  # noqa: RUF012

            def __len__(self) -> int:
                return 1

            def __getitem__(self, index: int):
                return {"lq": torch.rand(3, 8, 8), "lq_path": "a/b.png"}

        seen = []
        result = measure(
            bicubic_enlarger(4),
            DataLoader(NoGt()),
            METRICS,
            model="x",
            device=torch.device("cpu"),
            keep=lambda name, image, truth: seen.append((name, image.shape, truth)),
        )
        assert seen == [("b", (32, 32, 3), None)]
        assert result.means() == {}


class TestLeftOut:
    @pytest.fixture
    def photos(self, tmp_path):
        for name, side in (("dot", 8), ("cat", 48), ("torn", 48)):
            cv2.imwrite(str(tmp_path / f"{name}.png"), skimage.data.chelsea()[:side, :side])
        torn = tmp_path / "torn.png"
        torn.write_bytes(torn.read_bytes()[:900])
        options = {"name": "set", "phase": "test", "scale": 4, "type": "PairedSRDataset", "lq": "bicubic"}
        return DataLoader(PairedSRDataset(options | {"dataroot_gt": str(tmp_path)}), batch_size=1)

    def _measure(self, photos, **options):
        return measure(bicubic_enlarger(4), photos, METRICS, model="bicubic", device=torch.device("cpu"), **options)

    def test_means_are_over_the_others_and_json_is_json(self, photos):
        result = self._measure(photos, stop=False)
        assert set(result.per_image["psnr"]) == {"cat"}
        assert result.means()["psnr"] == result.per_image["psnr"]["cat"]
        assert set(result.left_out["psnr"]) == {"dot", "torn"}
        json.loads(json.dumps(result.rows(), allow_nan=False))
        assert [set(row["left_out"]) for row in result.rows()] == [{"dot", "torn"}, {"dot", "torn"}]
        assert any(line.startswith("set: dot is left out of the mean of psnr: ") for line in result.problems())

    def test_or_it_stops(self, photos):
        with pytest.raises(UserError, match=r"dot"):
            self._measure(photos)

    def test_niqe_of_a_small_image(self, photos):
        niqe = {"niqe": {"type": "calculate_niqe", "crop_border": 4}}
        result = measure(bicubic_enlarger(4), photos, niqe, model="x", device=torch.device("cpu"), stop=False)
        assert set(result.left_out["niqe"]) == {"dot", "cat", "torn"}, "BasicSR's NIQE wants 96 pixels"

    def test_a_damaged_photo_of_a_set_without_gt(self, tmp_path):
        for name in ("cat", "torn"):
            cv2.imwrite(str(tmp_path / f"{name}.png"), skimage.data.chelsea()[:64, :64])
        torn = tmp_path / "torn.png"
        torn.write_bytes(torn.read_bytes()[:900])
        options = {"name": "photos", "phase": "test", "type": "SingleImageDataset", "io_backend": {"type": "disk"}}
        loader = DataLoader(SingleImageDataset(options | {"dataroot_lq": str(tmp_path)}), batch_size=1)
        metrics = METRICS | {"niqe": {"type": "calculate_niqe", "crop_border": 4}}
        result = measure(bicubic_enlarger(4), loader, metrics, model="x", device=torch.device("cpu"), stop=False)
        assert set(result.per_image) == {"niqe"}
        assert {metric: set(images) for metric, images in result.left_out.items()} == {"niqe": {"torn"}}
        assert result.without_gt == ["psnr", "ssim"]
        rows = {row["metric"]: row for row in result.rows()}
        assert rows["psnr"]["mean"] is None
        assert rows["psnr"]["without_gt"] is True

    def test_an_image_that_equals_gt(self, tmp_path):
        cv2.imwrite(str(tmp_path / "flat.png"), np.full((32, 32, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / "cat.png"), skimage.data.chelsea()[:48, :48])
        options = {"name": "set", "phase": "test", "scale": 4, "type": "PairedSRDataset", "lq": "bicubic"}
        loader = DataLoader(PairedSRDataset(options | {"dataroot_gt": str(tmp_path)}), batch_size=1)
        result = self._measure(loader, stop=False)
        assert "is inf: it equals GT" in result.left_out["psnr"]["flat"]


class TestImages:
    def test_to_uint8_is_upstreams(self):
        image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
        assert np.array_equal(to_uint8(image), tensor2img([image.clone()]))

    def test_write_image(self, tmp_path):
        write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "a" / "ü.png")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["ü.png"]
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(UserError, match=r"folder\.png: a folder where a file should be"):
            write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "folder.png")
