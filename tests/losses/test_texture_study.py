"""What docs/one_to_many.md says, on smaller crops."""

import importlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import torch

from gramgan_plugin.losses import GramPatchLoss
from gramgan_plugin.patchdb.search import open_search

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("texture_study")


@pytest.fixture(scope="module")
def changes(study):
    return importlib.import_module("texture_changes")


@pytest.fixture(scope="module")
def gt(study):
    return study.photo_crop("chelsea", 96)


class TestChanges:
    def test_blur(self, changes, gt):
        expected = scipy.ndimage.gaussian_filter(gt[0].double().numpy(), 1.5, axes=(1, 2), mode="mirror", truncate=4)
        np.testing.assert_allclose(changes.blurred(gt, 1.5)[0].numpy(), expected, atol=1e-5)

    def test_shuffled_keeps_each_patchs_colours(self, changes, gt):
        def colours(image):
            blocks = image[0].numpy().reshape(3, 24, 4, 24, 4).transpose(1, 3, 2, 4, 0).reshape(576, 16, 3)
            return [sorted(map(tuple, block)) for block in blocks]

        assert not torch.equal(changes.shuffled(gt), gt)
        assert colours(changes.shuffled(gt)) == colours(gt)

    def test_directions_are_of_one_size(self, changes, gt):
        for change in changes.directions(gt).values():
            assert float(change.square().mean()) == pytest.approx(1, rel=1e-4)


class TestStudy:
    @pytest.mark.parametrize("center", [False, True])
    def test_the_minimum(self, study, gt, center):
        loss = study.texture_loss(center)
        assert float(loss(gt, gt)) == 0
        # Larger changes than 0.02 exchange the pixels of such a small crop's patches nearly altogether.
        unseen = {name for name, values in study.around_gt(gt, loss).items() if not study.grows(values[:4])}
        assert unseen <= ({"brighter", "darker", "redder"} if center else set())
        assert float(loss(study.shuffled(gt), gt)) < 1e-4 * float(loss(study.bicubic_enlarged(gt), gt))

    def test_grows(self, study):
        assert study.grows([0.1, 0.2, 0.3])
        assert not study.grows([0.1, 0.3, 0.2])
        assert not study.grows([0.0, 0.1, 0.2])

    def test_from_bicubic_to_gt(self, study, gt):
        found = study.relative(study.mixtures(gt), gt)
        for name in ("L_PT, uncentred", "L_PT, centred"):
            assert found[name][0] == pytest.approx(1)
            assert found[name] == sorted(found[name], reverse=True)
            assert found[name][-1] == 0
        assert max(found["L_PT, centred, beta 0"]) > 1.1, "without GT in the choice the way to GT is uphill"
        expected = [1 - t for t in (0, 0.25, 0.5, 0.75, 0.9, 1)]
        assert found["L1 of pixels"] == pytest.approx(expected, abs=1e-5)

    def test_shifts(self, study, gt):
        found = study.relative(study.shifts(gt), gt)
        for centred, uncentred, pixels in zip(
            found["L_PT, centred"], found["L_PT, uncentred"], found["L1 of pixels"], strict=True
        ):
            assert centred < pixels < uncentred
        assert found["L_PT, centred, beta 0"][2:] == pytest.approx([0, 0], abs=1e-6)

    def test_half_way(self, study, gt):
        row = study.chosen(gt, GramPatchLoss(center=True), study.one_to_one(True))
        assert row["loss / one-to-one"] == pytest.approx(0.5, abs=0.02)
        assert row["cosine of gradients"] > 0.9
        assert sum(list(row.values())[:4]) == pytest.approx(1)

    def test_the_gradients_constant_part(self, study, gt):
        sr = study.bicubic_enlarged(gt)
        assert study.constant_share(sr, gt, center=False) > 0.97
        assert study.constant_share(sr, gt, center=True) < 1e-6
        gradient = study.gradient(sr, gt, study.texture_loss(False))[0].numpy()
        blocks = gradient.reshape(3, 24, 4, 24, 4)
        residue = blocks - blocks.mean(axis=(2, 4), keepdims=True)
        expected = 1 - (residue**2).sum() / (gradient**2).sum()
        assert study.constant_share(sr, gt, center=False) == pytest.approx(expected, rel=1e-6)

    def test_with_a_database(self, study, gt, tmp_path):
        path = study.database_of_others(tmp_path, center=True)
        only = study.with_database(gt, GramPatchLoss(center=True, database=open_search(path), database_use="only"))
        also = study.with_database(gt, GramPatchLoss(center=True, database=open_search(path), database_use="also"))
        assert only[0] == 1
        assert 0.3 < also[0] < 1
        assert also[3] == 0, "GT's own patches keep the minimum at GT"
        assert 0 < only[3] < 0.3

    def test_pictures(self, study, gt, tmp_path):
        pictures = importlib.import_module("texture_study_pictures")
        sr = study.bicubic_enlarged(gt)
        chosen_by = {name: study.choose(sr, gt, GramPatchLoss(center=center)) for name, center in study.CENTER.items()}
        pictures.write_examples(tmp_path / "a.png", sr, gt, chosen_by)
        pictures.write_kinds(tmp_path / "b.png", {"one": gt, "two": gt}, {"one": chosen_by, "two": chosen_by})
        pictures.write_curves(tmp_path / "c.png", {name: (["0", "1"], {"loss": [0.0, 1.0]}) for name in "xy"})
        for path in sorted(tmp_path.glob("*.png")):
            with PIL.Image.open(path) as image:
                assert image.getcolors(256) is not None

    def test_a_candidates_place(self, study, gt):
        """The patch cut out of the candidates' images is the one that the targets have."""
        pictures = importlib.import_module("texture_study_pictures")
        targets = study.choose(study.bicubic_enlarged(gt), gt, GramPatchLoss())
        pixels = targets.describe("pixel")[0]
        for number in (0, 100, 333, 575):
            image, y, x = pictures.place(targets.candidates.images, int(targets.index[0, number]))
            patch = image[0, :, y : y + 4, x : x + 4].permute(1, 2, 0).flatten()
            torch.testing.assert_close(patch, pixels[number])
        kinds = pictures.kinds_of(targets)
        assert int((kinds == 0).sum()) == round(targets.own_position_fraction() * 576)

    def test_shipped_pictures_are_small(self):
        for name in ("selection", "kinds", "loss"):
            assert (BENCHMARKS.parent / f"docs/images/texture_{name}.png").stat().st_size < 300_000
