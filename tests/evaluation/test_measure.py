import basicsr  # noqa: F401
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import tensor2img
from torch.utils.data import DataLoader

from gramgan_plugin.data import PairedSRDataset
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.measure import bicubic_enlarger, measure, to_uint8, write_image

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
