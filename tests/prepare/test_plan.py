from pathlib import Path

import cv2
import numpy as np
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.plan import Settings, make_plan
from gramgan_plugin.prepare.presets import KNOWN_SETS, PRESETS, Preset, expected_sub_images, preset_of


def upstreams_count(width: int, height: int, crop: int, step: int, thresh: int) -> int:
    """What BasicSR's extract_subimages gives for a photo."""
    sides = []
    for length in (height, width):
        space = np.arange(0, length - crop + 1, step)
        if length - (space[-1] + crop) > thresh:
            space = np.append(space, length - crop)
        sides.append(len(space))
    return sides[0] * sides[1]


def div2k_like(folder: Path) -> list[tuple[str, Path]]:
    """800 names of 20 files: one side 2040, the other a multiple of 12, as in DIV2K."""
    files = []
    for number, side in enumerate(range(648, 2041, 72)):
        size = (side, 2040) if number % 4 else (2040, side)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        files.append(path)
    return [(f"{number:04d}.png", files[number * number % len(files)]) for number in range(1, 801)]


class TestMakePlan:
    def test_feature_count_of_a_div2k(self, tmp_path: Path) -> None:
        photos = div2k_like(tmp_path)
        plan = make_plan(photos, Settings(4, PRESETS["paper"]))
        sizes = [cv2.imread(str(path)).shape[1::-1] for path in sorted({path for _, path in photos})]
        by_path = dict(zip(sorted({path for _, path in photos}), sizes, strict=True))
        for grid in (*PRESETS.values(), Preset(480, 240, 96), Preset(96, 100, 0)):
            plan.settings = Settings(4, grid)
            assert plan.sub_images() == sum(upstreams_count(*by_path[path], *grid) for _, path in photos)

    def test_feature_numbers_and_job(self, photo_folder: Path) -> None:
        photos = [(path.name, path) for path in photo_folder.iterdir()]
        settings = Settings(4, Preset(96, 64, 0))
        plan = make_plan(photos, settings, hold_out=["coffee"])
        assert [(e.name, e.number, e.held) for e in plan.entries] == [
            ("chelsea.png", 1, False),
            ("coffee.png", 1, True),
            ("émile.png", 2, False),
        ]
        same = make_plan(reversed(photos), settings, hold_out=["coffee.png"])
        assert same.job == plan.job
        others = [
            make_plan(photos, settings),
            make_plan(photos[:2], settings),
            make_plan(photos, Settings(4, Preset(96, 68, 0)), hold_out=["coffee"]),
            make_plan(photos, Settings(4, Preset(96, 64, 0), as_stored=True), hold_out=["coffee"]),
            make_plan([("a" + name, path) for name, path in photos], settings, hold_out=["acoffee"]),
        ]
        assert len({plan.job, *(other.job for other in others)}) == 6

    def test_feature_lq(self, photo_folder: Path, tmp_path: Path) -> None:
        photo = photo_folder / "chelsea.png"  # 330x203
        lq = tmp_path / "lq.png"
        settings = Settings(4, Preset(96, 64, 0))
        for size, refused in (((82, 50), False), ((83, 51), False), ((82, 52), True), ((81, 50), True)):
            cv2.imwrite(str(lq), np.zeros((size[1], size[0], 3), np.uint8))
            plan = make_plan([("a.png", photo)], settings, find_lq=lambda name: lq)
            expected = [("a.png", f"its LQ photo lq.png is {size[0]}x{size[1]}, not 82x50")] if refused else []
            assert plan.refused == expected

    def test_exception(self, photo_folder: Path) -> None:
        with pytest.raises(UserError, match="max per photo 0"):
            make_plan([], Settings(4, Preset(96, 64, 0), most=0))
        with pytest.raises(UserError, match="crop size 98"):
            make_plan([], Settings(4, Preset(98, 64, 0)))


class TestPresets:
    def test_feature(self) -> None:
        assert PRESETS == {"paper": (192, 240, 0), "esrgan": (480, 240, 0)}
        assert preset_of(Preset(192, 240, 0)) == "paper"
        assert preset_of(Preset(192, 240, 1)) is None
        assert expected_sub_images("div2k", PRESETS["paper"]) == 44_226
        assert expected_sub_images("div2k", PRESETS["esrgan"]) == 32_592
        assert expected_sub_images("df2k", PRESETS["paper"]) is None
        assert expected_sub_images("folder", PRESETS["paper"]) is None
        assert [known.photos for known in KNOWN_SETS.values()] == [800, 2650, 3450]
