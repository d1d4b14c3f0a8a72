"""Sub-images chosen by detail, against gradients written out and against the set without a choice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare import data_set
from gramgan_plugin.prepare.detail import COLUMNS, ROWS, detail, draw_selection, select
from gramgan_plugin.prepare.folders import Partners, folder_photos
from gramgan_plugin.prepare.pack import prepare_photos
from tests.prepare.test_pack import SETTINGS, read_all

CHOSEN = replace(SETTINGS, keep_detailed=0.4)


def _gradient(image: np.ndarray) -> float:
    """By luma of BT.601, in float64, pixel by pixel."""
    luma = image.astype(np.float64) @ (0.114, 0.587, 0.299)  # BGR
    height, width = luma.shape
    across = [abs(luma[y, x + 1] - luma[y, x]) for y in range(height) for x in range(width - 1)]
    down = [abs(luma[y + 1, x] - luma[y, x]) for y in range(height - 1) for x in range(width)]
    return float(np.mean(across) + np.mean(down)) / 2


def test_value():
    photo = skimage.data.chelsea()[100:120, 90:123, ::-1]
    assert detail(photo) == pytest.approx(_gradient(photo), rel=1e-5)


def test_what_stays(photo_folder, tmp_path):
    """The most detailed of the set without a choice, with their keys, pixels and LQ."""
    whole, chosen = (
        prepare_photos(folder_photos(photo_folder), tmp_path / name, settings, progress=False)
        for name, settings in (("whole", SETTINGS), ("chosen", CHOSEN))
    )
    gt, lq = read_all(whole.gt), read_all(whole.lq)
    details = {key: _gradient(image) for key, image in gt.items()}
    expected = sorted(details, key=details.get, reverse=True)[: round(0.4 * len(gt))]
    for path, images in ((chosen.gt, gt), (chosen.lq, lq)):
        kept = read_all(path)
        assert kept.keys() == set(expected)
        assert all(np.array_equal(image, images[key]) for key, image in kept.items())
    facts = json.loads((chosen.out / "dataset.json").read_text())
    assert (facts["keep_detailed"], facts["sub_images"]) == (0.4, len(expected))
    assert facts["detail"]["measure"] == "mean absolute gradient of luma"
    assert facts["detail"]["sub_images_measured"] == len(gt)
    assert facts["detail"]["least"] == pytest.approx(details[expected[-1]], rel=1e-5)
    names = [json.loads(line)["key"] for line in (chosen.out / "names.jsonl").read_text().splitlines()]
    assert names == sorted(expected)
    assert main(["prepare", "verify", str(chosen.out)]) == 0


def test_photos_of_which_nothing_stays(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((120, 120, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "b.png"), skimage.data.astronaut()[:120, :200])
    cv2.imwrite(str(folder / "test.png"), skimage.data.coffee()[:120, :200])
    report = prepare_photos(
        folder_photos(folder), tmp_path / "set", replace(CHOSEN, keep_detailed=0.2), hold_out=["test"], progress=False
    )
    assert (report.photos, report.held_out) == (1, 1)
    assert {key[:6] for key in read_all(report.gt)} == {"000002"}, "numbers are as without a choice"


def test_interrupted(photo_folder, tmp_path, monkeypatch):
    """What is resumed is what one call makes, the picture as well."""
    straight = prepare_photos(folder_photos(photo_folder), tmp_path / "straight", CHOSEN, progress=False)
    monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 1)
    add, calls = data_set.DataSet.add, []

    def stop_at_the_second(self, cuts):
        calls.append(cuts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(self, cuts)

    monkeypatch.setattr(data_set.DataSet, "add", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        prepare_photos(folder_photos(photo_folder), tmp_path / "resumed", CHOSEN, progress=False)
    resumed = prepare_photos(folder_photos(photo_folder), tmp_path / "resumed", CHOSEN, progress=False)
    assert len(calls[2:]) == 2, "the first of three photos is not cut again"
    one, other = read_all(straight.gt), read_all(resumed.gt)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)
    for name in ("detail.png", "names.jsonl", "dataset.json"):
        assert (straight.out / name).read_bytes() == (resumed.out / name).read_bytes()


def test_many_sub_images_of_one_photo(photo_folder, tmp_path):
    """The numbers in keys grow beyond three digits."""
    grid = SETTINGS.grid._replace(crop_size=16, step=4)
    report = prepare_photos(
        folder_photos(photo_folder), tmp_path / "set", replace(CHOSEN, grid=grid, keep_detailed=0.02), progress=False
    )
    assert any(len(key.split("_s")[1]) == 4 for key in read_all(report.gt))
    assert (report.out / "detail.png").is_file()


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_photo_goes_before_the_picture(photo_folder, tmp_path, monkeypatch, on_error):
    """The set is whole by then."""
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    commit = data_set.DataSet.commit

    def and_remove(self):
        commit(self)
        for path in photos.iterdir():
            path.unlink()

    monkeypatch.setattr(data_set.DataSet, "commit", and_remove)
    report = prepare_photos(folder_photos(photos), tmp_path / "set", CHOSEN, on_error=on_error, progress=False)
    monkeypatch.undo()
    whole = prepare_photos(folder_photos(photo_folder), tmp_path / "whole", CHOSEN, progress=False)
    assert read_all(report.gt).keys() == read_all(whole.gt).keys()
    assert (report.out / "detail.png").is_file()


def test_photos_that_are_skipped_do_not_count(photo_folder, tmp_path):
    """The share is of what can be used: a photo whose LQ is damaged is not measured."""
    photos, lq = shutil.copytree(photo_folder, tmp_path / "photos"), tmp_path / "lq"
    lq.mkdir()
    for path in sorted(photos.iterdir()):
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        data = bytearray(cv2.imencode(".png", image[::4, ::4])[1].tobytes())
        if path.stem == "chelsea":
            data[-20] ^= 0xFF  # within the pixels, behind the header
        (lq / f"{path.stem}.png").write_bytes(data)
    find_lq = Partners([photos], [lq], 4, False)
    report = prepare_photos(
        folder_photos(photos), tmp_path / "set", CHOSEN, find_lq=find_lq, on_error="skip", progress=False
    )
    facts = json.loads((report.out / "dataset.json").read_text())
    assert [name for name, _ in facts["skipped"]] == ["chelsea.png"]
    assert facts["sub_images"] == round(0.4 * facts["detail"]["sub_images_measured"])


class TestPicture:
    def test_what_it_shows(self):
        """In each cell the image of its rank, what stays above what goes."""
        details = {f"{number:04d}": float(number) for number in range(1000)}
        selection = select(details, 0.25)
        images = {key: np.full((8, 8, 3), round(details[key] / 4), np.uint8) for key in selection.examples()}
        picture = draw_selection(selection, images)
        cells = []
        for part in range(2):
            for row in range(ROWS):
                y = part * (26 + ROWS * 100) + 26 + row * 100 + 48
                cells += [int(picture[y, column * 100 + 48, 0]) for column in range(COLUMNS)]
        ranks = [*np.linspace(999, 750, 48).round(), *np.linspace(749, 0, 48).round()]
        assert cells == pytest.approx([rank / 4 for rank in ranks], abs=0.6)
        assert len(picture) == 2 * (26 + ROWS * 100)

    def test_few(self):
        selection = select({"a": 2.0, "b": 1.0}, 1.0)
        picture = draw_selection(selection, dict.fromkeys("ab", np.zeros((8, 8, 3), np.uint8)))
        assert len(picture) == 26 + 100 + 26


class TestSelect:
    @pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.5, 5), (0.33, 3), (1, 10)])
    def test_share(self, share, count):
        found = select({str(number): float(number) for number in range(10)}, share)
        assert found.kept == {str(number) for number in range(10 - count, 10)}
        assert found.least == 10 - count

    def test_equal_ones(self):
        assert select(dict.fromkeys("dcba", 1.0), 0.5).kept == {"a", "b"}

    @pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
    def test_refused(self, share, photo_folder, tmp_path):
        with pytest.raises(UserError, match=r"keep detailed .*: must be above 0, .* 1 "):
            prepare_photos(folder_photos(photo_folder), tmp_path / "set", replace(SETTINGS, keep_detailed=share))


def test_command(photo_folder: Path, tmp_path, capsys):
    arguments = ["prepare", "folder", str(photo_folder), "--out", str(tmp_path / "set"), "--crop-size", "96"]
    arguments += ["--step", "64", "--keep-detailed", "0.5"]
    assert main([*arguments, "--dry-run"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    total = int(line.split()[0])
    assert f"{total} sub-images, of which {round(total / 2)} would stay, of 3 photos" in line
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f": {round(total / 2)} sub-images of " in lines[0]
    assert lines[1].startswith(f"  the most detailed of {total}, with detail of at least ")
    assert lines[1].endswith(f"{tmp_path / 'set/detail.png'}")
