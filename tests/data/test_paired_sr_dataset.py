import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from PIL import Image
from torch.utils.data import default_collate

from gramgan_plugin.config.schema_datasets import DATASETS, LOADER
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.images import encode_png, read_image
from gramgan_plugin.data.paired_sr_dataset import KNOWN, PairedSRDataset, _turned
from gramgan_plugin.data.photos import read_photo
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional.matlab_bicubic import lq_levels
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.prepare.pack import Report
from gramgan_plugin.prepare.shrink import shrink
from tests.functional.matlab_reference import matlab_uint8
from tests.messages import assert_message

CPU = torch.device("cpu")
Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(prepared: Report) -> Options:
    """Options over the prepared sub-images; a value of None drops a key."""

    def make(**changes: Any) -> dict[str, Any]:
        opt = {
            "name": "set",
            "type": "PairedSRDataset",
            "phase": "train",
            "scale": 4,
            "dataroot_gt": str(prepared.gt),
            "dataroot_lq": str(prepared.lq),
            "gt_size": 64,
            "use_hflip": True,
            "use_rot": True,
            **changes,
        }
        return {key: value for key, value in opt.items() if value is not None}

    return make


@pytest.fixture
def whole(prepared: Report) -> dict[str, Any]:
    """Option changes for the held-out photo, in folders."""
    test = prepared.out / "test"
    return {"dataroot_gt": str(test / "GT"), "dataroot_lq": str(test / "LQ_x4")}


class TestPairedSRDataset:
    @pytest.mark.parametrize("phase", ["train", "val", "test"])
    @pytest.mark.parametrize("backend", ["lmdb", "disk"])
    def test_feature_equals_basicsr(self, options: Options, whole: dict[str, Any], phase: str, backend: str) -> None:
        """Same crops and flips as BasicSR's dataset draws from the same state of ``random``."""
        opt = options(phase=phase, io_backend={"type": backend}, **whole if backend == "disk" else {})
        theirs = PairedImageDataset({**opt, "io_backend": {"type": backend}})
        expected = []
        for seed in range(12):
            random.seed(seed)
            expected.append(theirs[seed % len(theirs)])
        del theirs
        ours = PairedSRDataset(opt)
        for seed, item in enumerate(expected):
            random.seed(seed)
            result = ours[seed % len(ours)]
            assert result["gt"].dtype == result["lq"].dtype == torch.uint8
            for key in ("gt", "lq"):
                assert torch.equal(result[key].float() / 255, item[key])
                assert result[f"{key}_path"] == item[f"{key}_path"]
            if phase == "train":
                assert result["gt"].shape == (3, 64, 64)

    def test_feature_no_augmentation(self, options: Options) -> None:
        dataset = PairedSRDataset(options(use_hflip=False, use_rot=False, gt_size=96))
        plain = PairedSRDataset(options(phase="val"))
        for _ in range(8):
            assert torch.equal(dataset[0]["gt"], plain[0]["gt"])

    def test_feature_crops_align(self, options: Options) -> None:
        """GT and LQ show the same place, whatever was drawn: LQ is near the mean of its GT pixels."""
        dataset = PairedSRDataset(options(gt_size=32))
        for index in range(len(dataset)):
            item = dataset[index]
            mean = torch.nn.functional.avg_pool2d(item["gt"].float(), 4)
            assert (mean - item["lq"].float()).abs().mean() < 6

    @pytest.mark.parametrize("gt_size", [32, 96, 168])
    def test_feature_bicubic_is_the_window_of_the_whole(
        self, options: Options, whole: dict[str, Any], gt_size: int
    ) -> None:
        """Each LQ crop occurs in the whole photo's stored LQ at GT's place, border crops included."""
        opt = {"dataroot_gt": whole["dataroot_gt"], "dataroot_lq": None, "lq": "bicubic", "gt_size": gt_size}
        dataset = PairedSRDataset(options(use_hflip=False, use_rot=False, **opt))
        pairs = PairedSRDataset(options(phase="val", **whole))
        gt, lq = pairs[0]["gt"], pairs[0]["lq"]
        corners = set()
        for seed in range(30):
            random.seed(seed)
            item = dataset[0]
            assert item["gt"].shape == (3, gt_size + 32, gt_size + 32)
            assert (item["gt_margin"], item["scale"]) == (16, 4)
            assert "lq" not in item
            random.seed(seed)
            top = random.randint(0, lq.shape[1] - gt_size // 4)
            left = random.randint(0, lq.shape[2] - gt_size // 4)
            corners.add((top, left))
            batch = to_model_batch({**item, "gt": item["gt"][None]}, CPU)
            expected_gt = gt[:, top * 4 : top * 4 + gt_size, left * 4 : left * 4 + gt_size]
            expected_lq = lq[:, top : top + gt_size // 4, left : left + gt_size // 4]
            assert torch.equal(batch["gt"][0], expected_gt.float() / 255)
            assert torch.equal(batch["lq"][0], expected_lq.float() / 255)
        # 168 pixels of a photo 196 wide and 168 high: every margin crosses its border.
        assert len(corners) > 4

    def test_feature_bicubic_augmentation_commutes(self, options: Options, whole: dict[str, Any]) -> None:
        """Made from the flipped and turned GT, LQ equals the stored LQ, flipped and turned."""
        opt = {"dataroot_gt": whole["dataroot_gt"], "dataroot_lq": None, "lq": "bicubic"}
        made, stored = PairedSRDataset(options(**opt)), PairedSRDataset(options(**whole))
        for seed in range(20):
            random.seed(seed)
            item = to_model_batch(made[0], CPU)
            random.seed(seed)
            expected = to_model_batch(stored[0], CPU)
            assert torch.equal(item["gt"], expected["gt"])
            assert torch.equal(item["lq"], expected["lq"])

    def test_feature_bicubic_of_uint8(self, options: Options, photo_folder: Path) -> None:
        """Flipped, turned and at any place, LQ is what MATLAB makes of the whole photo."""
        opt = {"dataroot_gt": str(photo_folder), "dataroot_lq": None, "lq": "bicubic-uint8", "gt_size": 96}
        dataset = PairedSRDataset(options(**opt))
        whole = PairedSRDataset(options(phase="val", **opt))
        transposed = 0
        for seed in range(24):
            random.seed(seed)
            item = dataset[seed % 3]
            transposed += item["gt_transposed"]
            made = to_model_batch(default_collate([item]), CPU)
            assert made.keys() == {"gt", "lq", "gt_path", "lq_path"}
            gt, lq = ((made[key][0] * 255).round().byte().permute(1, 2, 0).numpy() for key in ("gt", "lq"))
            photo = whole[seed % 3]["gt"].permute(1, 2, 0).numpy()
            expected = matlab_uint8(photo, 4)
            random.seed(seed)
            top, left = random.randint(0, expected.shape[0] - 24), random.randint(0, expected.shape[1] - 24)
            turn = dataset._draw_turn()
            assert np.array_equal(lq, _turned(expected[top : top + 24, left : left + 24], turn))
            window = photo[top * 4 : top * 4 + 96, left * 4 : left * 4 + 96]
            assert np.array_equal(gt, _turned(window, turn))
        assert 0 < transposed < 24

    def test_feature_bicubic_of_uint8_validation(self, options: Options, photo_folder: Path) -> None:
        opt = options(phase="val", lq="bicubic-uint8", dataroot_gt=str(photo_folder), dataroot_lq=None, gt_size=None)
        made = to_model_batch(default_collate([PairedSRDataset(opt)[1]]), CPU)
        photo = skimage.data.coffee()[50:221, 200:397][:168, :196]
        lq = (made["lq"][0] * 255).round().permute(1, 2, 0).numpy()
        assert np.array_equal(lq, matlab_uint8(photo, 4))

    def test_feature_bicubic_validation(self, options: Options, prepared: Report, photo_folder: Path) -> None:
        opt = options(phase="val", lq="bicubic", dataroot_gt=str(photo_folder), dataroot_lq=None, gt_size=None)
        item = PairedSRDataset(opt)[1]
        assert item["gt_path"] == item["lq_path"] == str(photo_folder / "coffee.png")
        lq = to_model_batch({**item, "gt": item["gt"][None], "scale": torch.tensor([4])}, CPU)["lq"][0]
        expected = read_image(prepared.out / "test" / "LQ_x4" / "coffee.png")
        assert expected is not None
        assert np.array_equal((lq * 255).round().numpy(), expected[..., ::-1].transpose(2, 0, 1))

    def test_cardinality_lists(self, options: Options, prepared: Report) -> None:
        one = PairedSRDataset(options())
        two = PairedSRDataset(options(dataroot_gt=[str(prepared.gt)] * 2, dataroot_lq=[str(prepared.lq)] * 2))
        assert len(two) == 2 * len(one)
        assert two[len(one)]["gt_path"] == one[0]["gt_path"]

    def test_feature_filename_tmpl(self, options: Options, whole: dict[str, Any], tmp_path: Path) -> None:
        gt, lq = tmp_path / "HR", tmp_path / "LR"
        shutil.copytree(whole["dataroot_gt"], gt)
        shutil.copytree(whole["dataroot_lq"], lq)
        (lq / "coffee.png").rename(lq / "coffeex4.png")
        opt = options(phase="val", dataroot_gt=str(gt), dataroot_lq=str(lq), filename_tmpl="{}x4")
        assert PairedSRDataset(opt)[0]["lq_path"] == str(lq / "coffeex4.png")
        with pytest.raises(OptionError, match=r"^datasets.val.dataroot_lq: .*coffee"):
            PairedSRDataset({**opt, "filename_tmpl": "{}"})
        with pytest.raises(OptionError, match=r"^datasets.val.filename_tmpl: expected one {}"):
            PairedSRDataset({**opt, "filename_tmpl": "x4"})

    def test_feature_uneven_gt_is_cut_in_validation(self, options: Options, tmp_path: Path) -> None:
        opt = options(phase="val", dataroot_gt=str(tmp_path / "gt"), dataroot_lq=str(tmp_path / "lq"))
        self.write(tmp_path / "gt" / "a.png", 43, 50)
        self.write(tmp_path / "lq" / "a.png", 10, 12)
        assert PairedSRDataset(opt)[0]["gt"].shape == (3, 40, 48)
        with pytest.raises(UserError, match=r"a.png: .* 50x43 .*not 4 times .* 12x10"):
            PairedSRDataset({**opt, "phase": "train"})[0]

    @staticmethod
    def write(path: Path, height: int, width: int) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(np.zeros((height, width, 3), np.uint8), 3))

    @pytest.mark.parametrize(
        ("changes", "where", "kind"),
        [
            ({"dataroot_gt": None}, "train.dataroot_gt", "missing"),
            ({"dataroot_gt": 3}, "train.dataroot_gt", "expected a path"),
            ({"dataroot_lq": None}, "train.dataroot_lq", "missing"),
            ({"dataroot_gt": "/none.lmdb"}, "train.dataroot_gt: /none.lmdb", "no such LMDB"),
            ({"dataroot_gt": "/none"}, "train.dataroot_gt: /none", "no such folder"),
            ({"dataroot_lq": "/none", "phase": "val"}, "val.dataroot_lq: /none", "no such folder"),
            ({"dataroot_lq": ["a", "b"]}, "train.dataroot_lq", "2 paths for the 1"),
            ({"lq": "bicubic"}, "train.lq", "LQ comes from"),
            ({"lq": "nearest", "dataroot_lq": None}, "train.lq", "'nearest' is not known"),
            ({"scale": None}, "train.scale", "a whole number"),
            ({"gt_size": None}, "train.gt_size", "a whole number"),
            ({"gt_size": 66}, "train.gt_size", "66 is no multiple of scale 4"),
            ({"io_backend": {"type": "memcached"}}, "train.io_backend", "type 'memcached'"),
            ({"mean": [0.5, 0.5, 0.5]}, "train.mean", "stay in [0, 1]"),
            ({"std": [0.5], "phase": "val"}, "val.std", "stay in [0, 1]"),
            ({"use_hfilp": False}, "train.use_hfilp", "did you mean 'use_hflip'"),
            ({"gray": True}, "train.gray", "not known to PairedSRDataset"),
            ({"color": "gray"}, "train.color", "'gray' is not known"),
            ({"meta_info_file": 3}, "train.meta_info_file", "a path, got 3"),
            ({"meta_info_file": "/none.txt"}, "train.meta_info_file: /none.txt", "cannot be read"),
        ],
    )
    def test_exception_options(self, options: Options, changes: dict[str, Any], where: str, kind: str) -> None:
        with pytest.raises(OptionError) as caught:
            PairedSRDataset(options(**changes))
        assert_message(caught.value, f"datasets.{where}", kind)
        assert "\n" not in str(caught.value)

    def test_feature_what_the_loaders_read_is_known(self, options: Options) -> None:
        given = dict.fromkeys(LOADER, 1) | {"name": "set", "type": "PairedSRDataset", "mean": None, "std": None}
        assert len(PairedSRDataset({**options(), **given})) > 0
        declared = DATASETS["PairedSRDataset"].keys() | LOADER.keys() | {"phase", "scale"}
        assert declared == KNOWN

    def test_exception_lmdb_pairs_differ(self, options: Options, prepared: Report, tmp_path: Path) -> None:
        writer = LmdbWriter(tmp_path / "other.lmdb")
        writer.put({"000001_s001": b""}, {"000001_s001": (24, 24, 3)}, 3)
        writer.close()
        with pytest.raises(OptionError, match=r"differ: 000001_s002 is in .*GT.lmdb and not in .*other.lmdb"):
            PairedSRDataset(options(dataroot_lq=str(tmp_path / "other.lmdb")))

    def test_exception_lmdb_without_meta_info(self, options: Options, prepared: Report, tmp_path: Path) -> None:
        shutil.copytree(prepared.gt, tmp_path / "GT.lmdb")
        (tmp_path / "GT.lmdb" / "meta_info.txt").unlink()
        with pytest.raises(OptionError, match=r"^datasets.train.dataroot_gt: .*has no meta_info.txt"):
            PairedSRDataset(options(dataroot_gt=str(tmp_path / "GT.lmdb")))

    def test_exception_small(self, options: Options, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"000001_s001: .* 96x96 is smaller than gt_size 128"):
            PairedSRDataset(options(gt_size=128))[0]
        self.write(tmp_path / "gt" / "small.png", 63, 100)
        opt = options(dataroot_gt=str(tmp_path / "gt"), dataroot_lq=None, lq="bicubic")
        with pytest.raises(UserError, match=r"small.png: .* 100x60 is smaller than gt_size 64"):
            PairedSRDataset(opt)[0]

    def test_exception_undecodable(self, options: Options, tmp_path: Path) -> None:
        for name in ("gt", "lq"):
            self.write(tmp_path / name / "a.png", 64, 64)
        (tmp_path / "lq" / "a.png").write_bytes(b"nothing")
        opt = options(dataroot_gt=str(tmp_path / "gt"), dataroot_lq=str(tmp_path / "lq"))
        with pytest.raises(UserError, match=r"lq/a.png: not an image$"):
            PairedSRDataset(opt)[0]
        (tmp_path / "lq" / "a.png").unlink()
        (tmp_path / "lq" / "b.png").touch()
        with pytest.raises(OptionError, match="differ: a is in"):
            PairedSRDataset(opt)


class TestColourProfiles:
    """scikit-image's rocket has the profile of Adobe RGB."""

    @pytest.fixture
    def rocket(self, tmp_path: Path) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        shutil.copy(Path(skimage.data.__file__).parent / "rocket.jpg", folder)
        return folder

    def test_feature_training_photos_are_converted(self, options: Options, rocket: Path) -> None:
        opt = options(dataroot_gt=str(rocket), dataroot_lq=None, lq="bicubic", gt_size=64)
        random.seed(1)
        gt = PairedSRDataset({**opt, "use_hflip": False, "use_rot": False})[0]["gt"].permute(1, 2, 0).numpy()
        photo = read_photo(rocket / "rocket.jpg")[..., ::-1]  # in sRGB
        stored = read_image(rocket / "rocket.jpg")
        assert stored is not None
        places = np.lib.stride_tricks.sliding_window_view(photo, gt.shape)[::4, ::4, 0]
        assert not np.array_equal(photo, stored[..., ::-1])
        assert (places == gt).all(axis=(2, 3, 4)).any()

    def test_feature_with_given_lq_as_stored(self, options: Options, rocket: Path, tmp_path: Path) -> None:
        """LQ was made of GT as it is stored: converting one of them would teach a change of colours."""
        stored = read_image(rocket / "rocket.jpg")
        assert stored is not None
        height, width = (side // 4 * 4 for side in stored.shape[:2])
        whole = Image.open(rocket / "rocket.jpg")
        (tmp_path / "lq").mkdir()
        whole.crop((0, 0, width, height)).save(rocket / "rocket.png", icc_profile=whole.info["icc_profile"])
        (rocket / "rocket.jpg").unlink()
        Image.fromarray(stored[: height // 4, : width // 4]).save(tmp_path / "lq" / "rocket.png")
        opt = options(dataroot_gt=str(rocket), dataroot_lq=str(tmp_path / "lq"), gt_size=64)
        random.seed(1)
        gt = PairedSRDataset({**opt, "use_hflip": False, "use_rot": False})[0]["gt"].permute(1, 2, 0).numpy()
        places = np.lib.stride_tricks.sliding_window_view(stored[..., ::-1], gt.shape)[::4, ::4, 0]
        assert (places == gt).all(axis=(2, 3, 4)).any()

    def test_feature_benchmarks_are_as_stored(self, options: Options, rocket: Path) -> None:
        opt = options(dataroot_gt=str(rocket), dataroot_lq=None, lq="bicubic", phase="test")
        gt = PairedSRDataset(opt)[0]["gt"].permute(1, 2, 0).numpy()[..., ::-1]
        stored = read_image(rocket / "rocket.jpg")
        assert stored is not None
        np.testing.assert_array_equal(gt, stored[: gt.shape[0], : gt.shape[1]])


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    """Six pairs of photos, LQ of two scales in one folder, one GT in a subfolder."""
    for number in range(6):
        photo = skimage.data.coffee()[:96, 40 * number : 40 * number + 64, ::-1]
        path = tmp_path / "HR" / ("sub/0005.png" if number == 5 else f"{number:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.ascontiguousarray(photo), 3))
        for scale in (2, 4):
            lq = tmp_path / "LR" / f"{number:04}x{scale}.png"
            lq.parent.mkdir(exist_ok=True)
            lq.write_bytes(encode_png(shrink(np.ascontiguousarray(photo), scale), 3))
    return {
        "dataroot_gt": str(tmp_path / "HR"),
        "dataroot_lq": str(tmp_path / "LR"),
        "meta_info_file": str(tmp_path / "list.txt"),
        "filename_tmpl": "{}x4",
    }


def listing(folders: dict[str, Any], text: str) -> None:
    Path(folders["meta_info_file"]).write_text(text)


class TestMetaInfoFile:
    @pytest.mark.parametrize("phase", ["train", "val"])
    def test_feature_equals_basicsr(self, options: Options, folders: dict[str, Any], phase: str) -> None:
        """In the list's order; other files, of which some fit no template, do not matter."""
        listing(folders, "0004.png (96,64,3)\n0001.png (96,64,3)\nsub/0005.png (96,64,3)\n")
        opt = options(phase=phase, io_backend={"type": "disk"}, **folders)
        ours, theirs = PairedSRDataset(opt), PairedImageDataset({**opt, "io_backend": {"type": "disk"}})
        assert len(ours) == len(theirs) == 3
        for index in range(3):
            random.seed(index)
            item = ours[index]
            random.seed(index)
            expected = theirs[index]
            for key in ("gt", "lq"):
                assert np.array_equal(item[key].numpy(), (expected[key] * 255).round().numpy())
                assert Path(item[f"{key}_path"]) == Path(expected[f"{key}_path"])

    def test_feature_blank_lines_and_names_with_blanks(self, options: Options, folders: dict[str, Any]) -> None:
        (Path(folders["dataroot_gt"]) / "0002.png").rename(Path(folders["dataroot_gt"]) / "my photo.png")
        (Path(folders["dataroot_lq"]) / "0002x4.png").rename(Path(folders["dataroot_lq"]) / "my photox4.png")
        listing(folders, "\ufeff0000.png\n\nmy photo.png (96,64,3)  \n\n")
        dataset = PairedSRDataset(options(**folders))
        assert [Path(dataset[index]["lq_path"]).name for index in range(2)] == ["0000x4.png", "my photox4.png"]

    def test_feature_without_lq(self, options: Options, folders: dict[str, Any]) -> None:
        listing(folders, "0003.png\n0001.png\n")
        opt = options(**{**folders, "dataroot_lq": None, "filename_tmpl": None, "lq": "bicubic"})
        assert [Path(item["gt_path"]).name for item in map(PairedSRDataset(opt).__getitem__, (0, 1))] == [
            "0003.png",
            "0001.png",
        ]

    def test_feature_lmdb(self, options: Options, prepared: Report, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("000001_s004.png (96,96,3) 1\n000001_s002.png (96,96,3) 1\n")
        dataset = PairedSRDataset(options(meta_info_file=str(tmp_path / "list.txt")))
        assert [dataset[index]["lq_path"] for index in range(2)] == ["000001_s004", "000001_s002"]
        assert len(dataset) == 2

    def test_feature_cache(self, options: Options, folders: dict[str, Any]) -> None:
        listing(folders, "sub/0005.png\n")
        (Path(folders["dataroot_gt"]) / "0001.png").write_bytes(b"no image, and not listed")
        (Path(folders["dataroot_lq"]) / "0001x4.png").write_bytes(b"no image, and not listed")
        plain = PairedSRDataset(options(phase="val", **folders))
        cached = PairedSRDataset(options(phase="val", cache=True, **folders))
        assert torch.equal(plain[0]["gt"], cached[0]["gt"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"meta_info_file: .*list\.txt: .*no images"),
            ("\n \n", r"meta_info_file: .*list\.txt: .*no images"),
            ("0000.png\nx.png\ny.png\n", r"HR: has no x\.png and 1 more of the 3 images"),
            ("0000.png\n0000.png (1,2,3)\n", r"list\.txt, line 2: 0000\.png .*again after line 1"),
            ("../HR/0000.png\n", r"line 1: \.\./HR/0000\.png is not a name"),
            ("/etc/passwd\n", r"line 1: /etc/passwd is not a name"),
            ("a\x1b[2J\0.png\n", r"line 1: a\\x1b\[2J\\x00\.png is not a name"),
        ],
    )
    def test_exception(self, options: Options, folders: dict[str, Any], text: str, message: str) -> None:
        listing(folders, text)
        with pytest.raises(OptionError, match=message) as raised:
            PairedSRDataset(options(**folders))
        assert str(raised.value).startswith("datasets.train.")

    def test_exception_lq_is_missing(self, options: Options, folders: dict[str, Any]) -> None:
        listing(folders, "0000.png\n0001.png\n")
        (Path(folders["dataroot_lq"]) / "0001x4.png").unlink()
        with pytest.raises(OptionError, match=r"dataroot_lq: .*differ: 0001 is in .*HR and not in .*LR"):
            PairedSRDataset(options(**folders))

    def test_exception_not_text_and_several_roots(self, options: Options, folders: dict[str, Any]) -> None:
        Path(folders["meta_info_file"]).write_bytes(b"\xff\xfe0\0")
        with pytest.raises(OptionError, match="not a text file in UTF-8"):
            PairedSRDataset(options(**folders))
        listing(folders, "0000.png\n")
        roots = {"dataroot_gt": [folders["dataroot_gt"]] * 2, "dataroot_lq": [folders["dataroot_lq"]] * 2}
        with pytest.raises(OptionError, match=r"meta_info_file: .* one root"):
            PairedSRDataset(options(**{**folders, **roots}))


class TestColor:
    @pytest.mark.parametrize("phase", ["train", "val"])
    def test_feature_equals_basicsr(self, options: Options, folders: dict[str, Any], phase: str) -> None:
        listing(folders, "".join(f"{number:04}.png\n" for number in range(5)))
        opt = options(phase=phase, color="y", io_backend={"type": "disk"}, **folders)
        ours, theirs = PairedSRDataset(opt), PairedImageDataset({**opt, "io_backend": {"type": "disk"}})
        for index in range(5):
            random.seed(index)
            item = to_model_batch(default_collate([ours[index]]), CPU)
            random.seed(index)
            expected = theirs[index]
            for key in ("gt", "lq"):
                assert item[key].shape == (1, *expected[key].shape)
                assert item[key].dtype == torch.float32
                assert (item[key][0] - expected[key]).abs().max() < 1e-6

    @pytest.mark.parametrize("lq", ["bicubic", "bicubic-uint8"])
    def test_feature_lq_is_made_of_luma(self, options: Options, folders: dict[str, Any], lq: str) -> None:
        """Of luma in 8 bits, as MATLAB's rgb2ycbcr and imresize give it."""
        listing(folders, "0002.png\n")
        opt = {**folders, "dataroot_lq": None, "filename_tmpl": None, "lq": lq, "color": "y", "gt_size": 32}
        photo = skimage.data.coffee()[:96, 80:144]
        luma = np.floor(photo @ np.array([65.481, 128.553, 24.966]) / 255 + 16.5).astype(np.uint8)[..., None]
        kind = "matlab-uint8" if lq == "bicubic-uint8" else "matlab-bicubic"
        expected = lq_levels(torch.from_numpy(luma).permute(2, 0, 1)[None], 4, kind)[0, 0].numpy()
        made = to_model_batch(default_collate([PairedSRDataset(options(phase="val", **opt))[0]]), CPU)
        assert np.array_equal((made["lq"][0, 0] * 255).round().numpy(), expected)
        dataset = PairedSRDataset(options(**opt))
        for seed in range(8):
            random.seed(seed)
            item = to_model_batch(default_collate([dataset[0]]), CPU)
            random.seed(seed)
            top, left = random.randint(0, 16), random.randint(0, 8)
            window = _turned(expected[top : top + 8, left : left + 8, None], dataset._draw_turn())[..., 0]
            assert np.array_equal((item["lq"][0, 0] * 255).round().numpy(), window)
            assert item["gt"].shape == (1, 1, 32, 32)
