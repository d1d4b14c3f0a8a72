import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import torch
from basicsr.metrics import calculate_psnr
from basicsr.models.sr_model import SRModel
from torch.utils.data import DataLoader

from gramgan_plugin.config import check_options, resolve_options
from gramgan_plugin.data import PairedSRDataset
from gramgan_plugin.data.loaders import build_test_loaders
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.models.build import build_model
from gramgan_plugin.training.validation import validate

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": 4},
}


class Bicubic:
    """A model that enlarges by bicubic, and is `bias` too bright."""

    device = torch.device("cpu")
    nondist_validation = SRModel.nondist_validation

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias

    def feed_data(self, data: dict[str, Any]) -> None:
        self.lq = data["lq"]

    def test(self) -> None:
        self.output = matlab_bicubic(self.lq, up=4) + self.bias

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return {"result": self.output}


class Log:
    board = None

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, float]]] = []

    def validation(self, iteration: int, dataset: str, values: dict[str, float]) -> None:
        self.lines.append((iteration, dataset, values))


def loader_of(folder: Path, name: str = "set") -> DataLoader[Any]:
    options = {"name": name, "phase": "val", "scale": 4, "type": "PairedSRDataset"}
    return DataLoader(PairedSRDataset(options | {"dataroot_gt": str(folder), "lq": "bicubic"}), batch_size=1)


def options(folder: Path, **val: Any) -> dict[str, Any]:
    return {
        "rank": 0,
        "world_size": 1,
        "name": "run",
        "val": {"metrics": METRICS} | val,
        "path": {"visualization": str(folder / "visualization")},
    }


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestValidate:
    def test_means(self, photos, tmp_path):
        log = Log()
        results = validate(Bicubic(), [loader_of(photos)], 7, options(tmp_path, save_img=True, compare=0), log)
        values = []
        for number in range(5):
            gt = cv2.imread(str(photos / f"photo{number}.png"))
            sr = cv2.imread(str(tmp_path / f"visualization/photo{number}/photo{number}_7.png"))
            values.append(calculate_psnr(sr, gt, crop_border=4, test_y_channel=True))
        assert results["set"]["psnr"] == math.fsum(values) / 5
        assert list(results["set"]) == ["psnr", "ssim"]
        assert log.lines == [(7, "set", results["set"])]

    def test_two_sets(self, photos, tmp_path):
        loaders = [loader_of(photos, "a"), loader_of(photos, "b")]
        results = validate(Bicubic(), loaders, 1, options(tmp_path), Log())
        assert results["a"] == results["b"]

    def test_pictures(self, photos, tmp_path):
        validate(Bicubic(), [loader_of(photos)], 10, options(tmp_path, compare=2), Log())
        validate(Bicubic(0.1), [loader_of(photos)], 20, options(tmp_path, compare=2), Log())
        names = [f"photo{i}{rest}" for i in (0, 1) for rest in (".png", "/10.png", "/20.png", "/psnr.json")]
        assert files(tmp_path / "visualization/over_time/set") == sorted(names)
        crop = cv2.imread(str(tmp_path / "visualization/over_time/set/photo1/10.png"))
        assert crop.shape == (40, 44, 3), "the whole of a small image"

    def test_four_are_compared_by_default_and_none_on_request(self, photos, tmp_path):
        validate(Bicubic(), [loader_of(photos)], 10, options(tmp_path, compare=0), Log())
        assert not (tmp_path / "visualization").exists()
        validate(Bicubic(), [loader_of(photos)], 10, options(tmp_path), Log())
        strips = [path.name for path in (tmp_path / "visualization/over_time/set").glob("*.png")]
        assert sorted(strips) == [f"photo{i}.png" for i in range(4)]

    def test_without_metrics_or_images(self, photos, tmp_path):
        assert validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path, metrics=None), Log()) == {"set": {}}

        class Empty(torch.utils.data.Dataset):
            opt = {"name": "none"}  # noqa: RUF012

            def __len__(self) -> int:
                return 0

        assert validate(Bicubic(), [DataLoader(Empty())], 1, options(tmp_path), Log()) == {"none": {}}

    def test_it_draws_no_random_number(self, photos, tmp_path):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path), Log())
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_image_that_cannot_be_read(self, photos, tmp_path):
        (photos / "photo3.png").write_bytes(b"no picture")
        with pytest.raises(UserError, match=r"photo3\.png"):
            validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path), Log())

    def test_a_picture_that_cannot_be_written(self, photos, tmp_path):
        (tmp_path / "visualization").write_text("in the way")
        with pytest.raises(UserError, match="visualization"):
            validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path), Log())


class TestOtherModels:
    def test_gramgan_goes_on_training(self, tiny_options, workdir):
        tiny_options["val"]["save_img"] = False
        opt = resolve_options(deepcopy(tiny_options), is_train=True) | {"rank": 0, "world_size": 1}
        model = build_model(opt)
        results = validate(model, build_test_loaders(opt, "val"), 3, opt, Log())
        assert 0 < results["heldout"]["psnr"] < 60
        assert model.net_g.training
        assert (workdir / "experiments/tiny/visualization/over_time/heldout/astronaut.png").is_file()

    def test_a_validation_of_its_own(self, photos, tmp_path):
        class Own(Bicubic):
            def nondist_validation(self, *args: Any) -> None: ...

            def validation(self, loader: Any, iteration: int, board: Any, save: bool) -> None:
                self.called = (loader.dataset.opt["name"], iteration, board, save)
                self.metric_results = {"psnr": 20.5, "ssim": 0.5}

        model, log = Own(), Log()
        results = validate(model, [loader_of(photos)], 9, options(tmp_path, save_img=True), log)
        assert model.called == ("set", 9, None, True)
        assert results == {"set": {"psnr": 20.5, "ssim": 0.5}}
        assert log.lines == [], "upstream has logged it"

    def test_video(self, photos, tmp_path):
        class Video(Bicubic):
            def nondist_validation(self, *args: Any) -> None: ...

            def validation(self, *args: Any) -> None:
                # As VideoBaseModel: clip -> (frames, metrics).
                self.metric_results = {
                    "one": torch.tensor([[10.0, 1.0], [20.0, 0.0], [30.0, 0.5]]),
                    "two": torch.tensor([[40.0, 0.25]]),
                }

        results = validate(Video(), [loader_of(photos)], 9, options(tmp_path), Log())
        assert results == {"set": {"psnr": 30.0, "ssim": 0.375}}

    @pytest.mark.parametrize("kept", [None, {}, {"x": "y"}])
    def test_what_it_keeps_is_unknown(self, photos, tmp_path, kept):
        class Own(Bicubic):
            metric_results = kept

            def nondist_validation(self, *args: Any) -> None: ...

            def validation(self, *args: Any) -> None: ...

        assert validate(Own(), [loader_of(photos)], 9, options(tmp_path), Log()) == {"set": {}}


class TestOptions:
    @pytest.mark.parametrize("value", [0, 3, 4.0])
    def test_right(self, tiny_options, value):
        tiny_options["val"]["compare"] = value
        assert check_options(tiny_options) == []

    @pytest.mark.parametrize(
        ("value", "message"),
        [(-1, "must be at least 0"), (True, "expected a whole number"), (1.5, "expected a whole number")],
    )
    def test_wrong(self, tiny_options, value, message):
        tiny_options["val"]["compare"] = value
        with pytest.raises(OptionError, match=rf"^val\.compare: {message}"):
            check_options(tiny_options)
