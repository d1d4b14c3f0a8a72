"""The texture loss that chooses from a database of patches as well."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional import extract_patches, random_draw, random_theta
from gramgan_plugin.losses import GramPatchLoss
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.search import open_search
from gramgan_plugin.patchdb.writing import write_store
from gramgan_plugin.steps.step_state import Batch, StepState
from gramgan_plugin.steps.terms import TextureTerm
from tests.losses.gram_patch_reference import opened, reference, targets_of

PHOTOS = ("astronaut", "chelsea")


def photo(name: str, size: int, top: int = 60, left: int = 180) -> torch.Tensor:
    image = torch.from_numpy(getattr(skimage.data, name)()[top : top + size, left : left + size].copy())
    return image.permute(2, 0, 1)[None].double() / 255


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """Writes a database of a real photo's patches; gives its folder and the patches as float64 values."""

    def write(center: bool = False, patch_size: int = 4) -> tuple[str, np.ndarray]:
        folder = tmp_path_factory.mktemp("textures")
        cut = torch.cat([extract_patches(photo(name, 36, 60, 204), patch_size)[0] for name in PHOTOS])
        levels = (cut * 255).round().to(torch.uint8).numpy()
        patches = levels.reshape(-1, patch_size, patch_size, 3)
        write_store(folder, [patches], len(patches), Definition(patch_size, center=center))
        return str(folder), patches / 255

    return write


def pair(n: int = 2):
    gt = torch.cat([photo(name, 24) for name in PHOTOS])[:n]
    sr = torch.nn.functional.avg_pool2d(gt, 5, 1, 2, count_include_pad=False)
    return sr, gt


class TestDatabase:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"center": True},
            {"database_use": "only"},
            {"database_use": "only", "loss_on": "pixel", "center": True},
            {"loss_on": "pixel", "criterion": "mse"},
            {"top_k": 3},
            {"top_k": 4, "database_use": "only", "alpha": 0.5, "beta": 0.5},
            {"scope": "local", "radius": 0.5, "top_k": 2},
            {"stride": 2, "downsample": [2, 3]},
            {"patch_size": 3, "center": True, "stride": 1},
        ],
        ids=str,
    )
    def test_feature(self, make, options):
        folder, patches = make(options.get("center", False), options.get("patch_size", 4))
        loss = opened(database=folder, affine_magnitude=0.02, **options)
        sr, gt = pair()
        theta = random_theta(2, 1, 0.02, (0,))
        draw = random_draw(2, loss.patches_in(gt), (0,))
        expected, index = reference(sr, gt, theta, loss, draw, database=patches)
        selection = targets_of(loss, sr, gt, theta, draw)
        # The database's Gram vectors are float32: neighbours whose distances differ by less than that may differ.
        assert np.mean(selection.index.numpy() == index) > 0.99
        np.testing.assert_allclose(float(loss(sr, gt, theta, draw=draw)), expected, rtol=1e-4)
        count = sum(selection.candidates.counts())
        share = np.mean(index >= count)
        assert share == 1 if options.get("database_use") == "only" else 0.01 < share < 0.99
        np.testing.assert_allclose(selection.kind_fractions()["database"], share, atol=0.01)
        assert sum(selection.kind_fractions().values()) == pytest.approx(1)
        theirs = selection.database_index >= 0
        assert torch.equal(theirs, selection.index >= count)
        taken = torch.from_numpy(patches).flatten(1, 2)[selection.database_index[theirs]]
        torch.testing.assert_close(selection.patches()[theirs].double(), taken, rtol=1e-6, atol=1e-6)

    def test_of_equally_near_ones_the_crops_is_taken(self, make):
        folder, _ = make()
        gt = photo("chelsea", 36, 60, 204)  # whose patches are in the database
        selection = targets_of(opened(database=folder), gt.float(), gt.float())
        assert selection.own_position_fraction() > 0.99

    def test_gradcheck(self, make):
        folder, _ = make(center=True)
        sr, gt = (image[..., :8, :8].contiguous() for image in pair(1))
        for options in ({}, {"loss_on": "pixel"}, {"database_use": "only", "criterion": "mse"}):
            loss = opened(database=folder, center=True, **options)
            theta = random_theta(1, 1, 0.003, (0,))
            assert torch.autograd.gradcheck(
                lambda x, loss=loss, theta=theta: loss(x, gt, theta), sr.requires_grad_(), fast_mode=True
            )

    def test_term(self, make):
        """What is drawn depends on seed, iteration and sample; the shares are logged."""
        folder, _ = make()
        sr, gt = (image.float() for image in pair())
        term = TextureTerm("l_g_gram", opened(database=folder, top_k=5))
        values = []
        for iteration in (1, 1, 2):
            batch = Batch(lq=gt[..., ::4, ::4], gt=gt, iteration=iteration)
            report = {}
            values.append(term(StepState(batch, sr, report=report)))
            shares = [report[f"gram_{kind}"] for kind in ("original", "downsampled", "affine", "database")]
            assert sum(shares).item() == pytest.approx(1)
            assert shares[-1] > 0
            assert {"gram_distance", "gram_one_to_one"} < report.keys()
        assert torch.equal(values[0], values[1])
        assert not torch.equal(values[0], values[2])

    def test_copy(self, make):
        folder, _ = make()
        loss, (sr, gt) = opened(database=folder, affine_copies=0), pair()
        assert torch.equal(deepcopy(loss)(sr, gt), loss(sr, gt))
        assert not loss.state_dict()

    def test_not_finite(self, make):
        folder, _ = make()
        sr, gt = pair()
        sr[0, 0, 0, 0] = float("nan")
        loss = opened(database=folder, top_k=2)
        assert not torch.isfinite(loss(sr, gt))

    def test_exception(self, make, tmp_path):
        folder, _ = make()
        with pytest.raises(OptionError, match=r"gram_patch_opt\.center: true"):
            opened(database=folder, center=True)
        with pytest.raises(OptionError, match=r"gram_patch_opt\.patch_size: 6"):
            opened(database=folder, patch_size=6)
        with pytest.raises(UserError, match="no such patch database"):
            opened(database=str(tmp_path / "none.patchdb"))
        opened(database=folder, top_k=162)
        with pytest.raises(ValueError, match=r"top_k: 163, but .* has 162 patches"):
            opened(database=folder, top_k=163)
        with pytest.raises(OptionError, match=r"gram_patch_opt\.center: true"):
            GramPatchLoss(database=open_search(Path(folder)), center=True)
        with pytest.raises(ValueError, match=r"expected \(M, 6\), got \(4, 1\)"):
            opened(database=folder)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
