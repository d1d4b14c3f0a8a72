import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import skimage.data
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.metrics import calculate_niqe, calculate_psnr
from basicsr.models.sr_model import SRModel
from torch.utils.data import DataLoader

from gramgan_plugin.config import check_options, resolve_options
from gramgan_plugin.data.loaders import build_test_loaders
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.evaluation.enlarge import in_tiles
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.models.build import build_model
from gramgan_plugin.training.validation import validate
from tests.messages import assert_message

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
        self.left_out: dict[str, dict[str, str]] = {}

    def validation(self, iteration: int, result: SetResult) -> None:
        self.lines.append((iteration, result.dataset, result.means()))
        self.left_out |= result.left_out
        self.problems = result.problems()


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
            sr = cv2.imread(str(tmp_path / f"visualization/set/photo{number}/photo{number}_7.png"))
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
            validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path, on_error="stop"), Log())

    def test_a_picture_that_cannot_be_written(self, photos, tmp_path):
        (tmp_path / "visualization").write_text("in the way")
        with pytest.raises(UserError, match="visualization"):
            validate(Bicubic(), [loader_of(photos)], 1, options(tmp_path), Log())


class TestLeftOut:
    """One bad image never ends a validation."""

    @pytest.mark.parametrize("content", ["unreadable", "truncated", "another size"])
    def test_it_is_named_and_the_mean_is_over_the_others(self, photos, tmp_path, content):
        whole, log = Log(), Log()
        for number in (0, 1, 2, 4):
            (photos / "others").mkdir(exist_ok=True)
            (photos / f"others/photo{number}.png").write_bytes((photos / f"photo{number}.png").read_bytes())
        expected = validate(Bicubic(), [loader_of(photos / "others")], 1, options(tmp_path), whole)
        for path in (photos / "others").iterdir():
            path.unlink()
        (photos / "others").rmdir()
        path, loader = photos / "photo3.png", loader_of(photos)
        if content == "another size":
            folder = tmp_path / "LQ"
            folder.mkdir()
            for gt in photos.iterdir():
                image = cv2.imread(str(gt))
                side = image.shape[0] // 4 + 3 * (gt == path)
                cv2.imwrite(str(folder / gt.name), cv2.resize(image, (image.shape[1] // 4, side)))
            settings = {"name": "set", "phase": "val", "scale": 4, "type": "PairedImageDataset"}
            roots = {"dataroot_gt": str(photos), "dataroot_lq": str(folder), "io_backend": {"type": "disk"}}
            loader = DataLoader(PairedImageDataset(settings | roots), batch_size=1)
            expected = {"set": {}}
        else:
            path.write_bytes(b"no picture" if content == "unreadable" else path.read_bytes()[:700])
        results = validate(Bicubic(), [loader], 1, options(tmp_path, save_img=True), log)
        ((metric, reasons), *_) = log.left_out.items()
        assert (metric, list(reasons)) == ("psnr", ["photo3"])
        if expected["set"]:
            assert results == expected
        assert not (tmp_path / "visualization/set/photo3").exists() or content == "another size"

    def test_the_network_cannot_take_one(self, photos, tmp_path):
        class Picky(Bicubic):
            def test(self) -> None:
                assert self.lq.shape[-2] != 12, "sides of 12 are no good"
                super().test()

        log = Log()
        results = validate(Picky(), [loader_of(photos)], 1, options(tmp_path), log)
        assert set(results["set"]) == {"psnr", "ssim"}
        assert log.left_out["psnr"].keys() == {"photo2"}
        assert_message(log.left_out["psnr"]["photo2"], "set: photo2", "run cannot enlarge it (13x12): sides of 12")

    def test_too_small_for_the_metric_gives_no_nan(self, tmp_path):
        folder = tmp_path / "GT"
        folder.mkdir()
        for name, side in (("dot", 8), ("photo", 40)):
            cv2.imwrite(str(folder / f"{name}.png"), skimage.data.chelsea()[:side, :side])
        log = Log()
        results = validate(Bicubic(), [loader_of(folder)], 1, options(tmp_path), log)
        assert math.isfinite(results["set"]["psnr"])
        assert "calculate_psnr of dot (8x8 in 3 channels) is nan" in log.left_out["psnr"]["dot"]


class TestMemory:
    class Small(Bicubic):
        """Has memory for so many LQ pixels."""

        pixels = 1100

        def test(self) -> None:
            if self.lq.shape[-2] * self.lq.shape[-1] > self.pixels:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            super().test()

    @pytest.fixture
    def large(self, tmp_path):
        folder = tmp_path / "GT"
        folder.mkdir()
        cv2.imwrite(str(folder / "large.png"), skimage.data.chelsea()[:, :448])
        return folder

    def test_tiles_after_out_of_memory(self, large, tmp_path, caplog):
        caplog.set_level("WARNING", "basicsr")
        whole = validate(Bicubic(), [loader_of(large)], 1, options(tmp_path), Log())
        model = self.Small()
        model.pixels = 7500
        tiled = validate(model, [loader_of(large)], 1, options(tmp_path), Log())
        # Bicubic sees two pixels around each: tiles with their context agree with the whole image.
        assert tiled["set"]["psnr"] == pytest.approx(whole["set"]["psnr"], abs=1e-3)
        assert "enlarged in tiles (val.tile: 64 " in caplog.messages[-1]

    def test_the_advice_is_about_validation(self, large, tmp_path):
        for tile, advice in ((None, "close other programs"), (0, "leave out val.tile")):
            with pytest.raises(UserError, match=f"val.tile: out of memory .*{advice}") as caught:
                validate(self.Small(), [loader_of(large)], 1, options(tmp_path, tile=tile, on_error="stop"), Log())
            assert "batch" not in str(caught.value)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (64, 64), (65, 33)])
    @pytest.mark.parametrize("tile", [1, 16, 64])
    def test_in_tiles(self, height, width, tile):
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        repeat = torch.nn.Upsample(scale_factor=2, mode="nearest")
        torch.testing.assert_close(in_tiles(repeat, image, tile, 4), repeat(image), rtol=0, atol=0)


class TestWithoutGT:
    def test_niqe_alone(self, tmp_path):
        folder = tmp_path / "LQ"
        folder.mkdir()
        cv2.imwrite(str(folder / "cat.png"), skimage.data.chelsea()[:64, :64])
        settings = {"name": "photos", "phase": "val", "type": "SingleImageDataset", "io_backend": {"type": "disk"}}
        loader = DataLoader(SingleImageDataset(settings | {"dataroot_lq": str(folder)}), batch_size=1)
        metrics = {**METRICS, "niqe": {"type": "calculate_niqe", "crop_border": 4}}
        log = Log()
        results = validate(Bicubic(), [loader], 3, options(tmp_path, metrics=metrics, save_img=True), log)
        picture = cv2.imread(str(tmp_path / "visualization/photos/cat/cat_3.png"))
        assert results == {"photos": {"niqe": pytest.approx(calculate_niqe(picture, crop_border=4), rel=1e-9)}}
        assert_message(log.problems, "photos", "no GT, so psnr, ssim ")


class TestNames:
    def test_two_sets_do_not_overwrite_each_other(self, photos, tmp_path):
        loaders = [loader_of(photos, "a"), loader_of(photos, "b")]
        validate(Bicubic(), loaders, 1, options(tmp_path, save_img=True, compare=0), Log())
        assert len(files(tmp_path / "visualization")) == 10

    def test_nor_two_images_of_one_set(self, tmp_path):
        folder = tmp_path / "GT"
        folder.mkdir()
        for ending in ("png", "jpg"):
            cv2.imwrite(str(folder / f"cat.{ending}"), skimage.data.chelsea()[:64, :64])
        settings = {"name": "set", "phase": "val", "type": "SingleImageDataset", "io_backend": {"type": "disk"}}
        loader = DataLoader(SingleImageDataset(settings | {"dataroot_lq": str(folder)}), batch_size=1)
        validate(Bicubic(), [loader], 1, options(tmp_path, save_img=True, compare=0), Log())
        assert files(tmp_path / "visualization") == ["set/cat/cat_1.png", "set/cat_2/cat_2_1.png"]


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
