"""Pairs made by Real-ESRGAN's degradation, against BasicSR's own model."""

import random
from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.models import realesrgan_model
from basicsr.utils.img_process_util import filter2D, usm_sharp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.data.seeded import DEGRADATION_STREAM, seeded
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.degradation import Degradation, DegradedPairs
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.models.pair_queue import PairQueue
from tests.models.model_options import resolved

CPU = torch.device("cpu")
SIDE, BATCH = 128, 2  # of the images that are degraded here; the data set's are 400


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory, degraded_data: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Seven batches of parts of photos, with the kernels of BasicSR's data set."""
    folder = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate((skimage.data.chelsea(), skimage.data.coffee())):
        cv2.imwrite(str(folder / f"{number}.png"), photo[:300, :, ::-1])
    (folder / "meta.txt").write_text("0.png\n1.png\n")
    options = deepcopy(degraded_data) | {"dataroot_gt": str(folder), "meta_info": str(folder / "meta.txt")}
    dataset = RealESRGANDataset(options)
    made = []
    for number in range(7):
        with seeded(number, (0,)):
            one, other = dataset[0], dataset[1]
        tensors = {key: torch.stack([one[key], other[key]]) for key in one if key != "gt_path"}
        made.append(tensors | {"gt": tensors["gt"][..., 90 : 90 + SIDE, 120 : 120 + SIDE].contiguous()})
    return made


@pytest.fixture
def options(degradation: dict[str, Any]) -> dict[str, Any]:
    return degradation | {"scale": 4, "gt_size": 64, "queue_size": 4, "manual_seed": 3, "rank": 0}


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch, tiny_options: dict[str, Any], options: dict[str, Any]) -> Any:
    """Builds BasicSR's RealESRGANModel on the CPU."""
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda module: module)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    # Newer releases of torch keep channels-last in F.pad, and filter2D cannot view its result.
    monkeypatch.setattr(realesrgan_model, "filter2D", lambda image, kernel: filter2D(image.contiguous(), kernel))

    def build(**changes: Any) -> Any:
        own = deepcopy(tiny_options) | options | changes
        own["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
        own["train"] = {
            key: own["train"][key]
            for key in ("ema_decay", "optim_g", "optim_d", "scheduler", "pixel_opt", "total_iter")
        }
        own["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [9]}
        own["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
        return realesrgan_model.RealESRGANModel(resolved(own))

    return build


class TestAgainstUpstream:
    @pytest.mark.parametrize("seed", range(12))
    def test_lq_of_a_batch(self, upstream, workdir, options, batches, seed):
        """The same states of the three global generators give the same bits; GT is not cropped, nor LQ exchanged."""

        def seed_all() -> None:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)

        model, batch = upstream(gt_size=SIDE), batches[seed % len(batches)]
        seed_all()
        model.feed_data(batch)
        ours, kernels = Degradation(options, CPU), [batch[key] for key in ("kernel1", "kernel2", "sinc_kernel")]
        sharpened = model.usm_sharpener(batch["gt"])
        seed_all()
        lq = ours(sharpened, *kernels)
        assert lq.shape == (BATCH, 3, SIDE // 4, SIDE // 4)
        assert torch.equal(lq, model.lq)

    @pytest.mark.parametrize("seed", range(4))
    def test_pairs_of_a_run(self, upstream, workdir, options, batches, seed):
        """Crops and the queue as well: after two batches it is full, and pairs of several batches come out."""
        theirs, ours = upstream(), DegradedPairs(options | {"manual_seed": seed}, CPU)
        for number, batch in enumerate(batches):
            with seeded(seed, (DEGRADATION_STREAM, number, 0)):
                theirs.feed_data(batch)
            lq, gt = ours(batch)
            assert torch.equal(lq, theirs.lq), number
            assert torch.equal(gt, theirs.gt), number
            assert gt.shape == (BATCH, 3, 64, 64)

    def test_every_branch_was_taken(self, options, batches, monkeypatch):
        """The seeds above lead through both noises, both orders of the last two steps, and all resizes."""
        taken: set[str] = set()
        module = "gramgan_plugin.models.degradation"
        for name in ("random_add_gaussian_noise_pt", "random_add_poisson_noise_pt"):
            function = getattr(__import__(module, fromlist=[name]), name)
            monkeypatch.setattr(f"{module}.{name}", lambda *a, f=function, n=name, **k: taken.add(n) or f(*a, **k))
        resize = torch.nn.functional.interpolate
        monkeypatch.setattr(f"{module}.interpolate", lambda i, mode, **k: taken.add(mode) or resize(i, mode=mode, **k))
        degradation = Degradation(options, CPU)
        compress, steps = degradation.jpeg, []
        degradation.jpeg = lambda image, quality: steps.append(image.shape[-1]) or compress(image, quality=quality)
        for seed in range(12):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            batch = batches[seed % len(batches)]
            degradation(batch["gt"], *(batch[key] for key in ("kernel1", "kernel2", "sinc_kernel")))
        assert len(taken) == 5
        first, last = steps[::2], steps[1::2]
        assert min(first) < SIDE < max(first)
        assert SIDE in first
        assert SIDE // 4 in last
        assert {side < SIDE // 4 for side in last if side != SIDE // 4} == {True, False}


class TestDegradedPairs:
    def test_depends_on_seed_batch_and_rank_alone(self, options, batches):
        def lq(**changes: Any) -> Tensor:
            return DegradedPairs(options | changes, CPU)(batches[0])[0]

        torch.manual_seed(1)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        first = lq()
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
        torch.manual_seed(2)
        assert torch.equal(lq(), first)
        assert not torch.equal(lq(manual_seed=4), first)
        assert not torch.equal(lq(rank=1), first)
        pairs = DegradedPairs(options, CPU)
        assert not torch.equal(pairs(batches[0])[0], pairs(batches[0])[0])

    @pytest.mark.parametrize("done", [0, 1, 2, 5])
    def test_resumed(self, options, batches, done):
        straight = DegradedPairs(options, CPU)
        expected = [straight(batch) for batch in batches]
        before, after = DegradedPairs(options, CPU), DegradedPairs(options, CPU)
        for batch in batches[:done]:
            before(batch)
        after.load_state_dict(deepcopy(before.state_dict()))
        for batch, (lq, gt) in zip(batches[done:], expected[done:], strict=True):
            pair = after(batch)
            assert torch.equal(pair[0], lq)
            assert torch.equal(pair[1], gt)

    def test_from_options(self, options):
        def made(kind: str, opt: dict[str, Any]) -> DegradedPairs | None:
            return DegradedPairs.from_options(opt | {"datasets": {"train": {"type": kind}}}, CPU)

        assert made("RealESRGANDataset", options).queue.size == 4
        assert made("SomeonesKernels", options) is not None
        assert made("PairedSRDataset", {"scale": 4}) is None
        del options["jpeg_range2"]
        with pytest.raises(OptionError, match=r"^jpeg_range2: missing"):
            made("RealESRGANDataset", options)

    @pytest.mark.parametrize("state", [{}, {"batches": "1", "queues": []}, {"batches": 1, "queues": {}}])
    def test_exception_damaged(self, options, state):
        with pytest.raises(ValueError, match="damaged"):
            DegradedPairs(options, CPU).load_state_dict(state)


def pairs_of(number: int, count: int) -> tuple[Tensor, Tensor]:
    """A batch whose images are flat: LQ in a level of its own, GT in the next one."""
    levels = torch.arange(number * count, (number + 1) * count).view(-1, 1, 1, 1) * 2
    lq, gt = (levels + one for one in (0, 1))
    return tuple(part.expand(-1, 3, side, side) / 255.0 for part, side in ((lq, 2), (gt, 8)))  # type: ignore[return-value]


class TestPairQueue:
    @given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))
    def test_pairs_stay_pairs_and_come_out_once(self, count, times, seed):
        torch.manual_seed(seed)
        queue, seen = PairQueue(count * times, 8), []
        for number in range(16):
            fed = pairs_of(number, count)
            lq, gt = queue.exchange(*fed)
            if number < times:
                assert torch.equal(lq, fed[0])
                assert torch.equal(gt, fed[1])
                continue
            first, second = lq[:, 0, 0, 0] * 255, gt[:, 0, 0, 0] * 255
            assert torch.equal(lq, first.view(-1, 1, 1, 1).expand(lq.shape) / 255)
            assert torch.equal((first + 1).round(), second.round())
            assert first.max() < 2 * count * number, "of an earlier batch"
            seen += first.round().tolist()
        assert len(set(seen)) == len(seen)

    def test_any_level_is_kept(self):
        levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
        queue = PairQueue(1, 16)
        queue.exchange(levels, levels)
        assert torch.equal(queue.exchange(levels, levels)[1], levels)

    def test_options_that_changed(self, caplog):
        queue = PairQueue(4, 8)
        queue.exchange(*pairs_of(0, 2))
        queue.exchange(*pairs_of(1, 2))
        smaller, other = PairQueue(3, 8), PairQueue(4, 16)
        smaller.load_state_dict(queue.state_dict(), CPU)
        assert [len(images) for images in smaller.images.values()] == [3, 3]
        other.load_state_dict(queue.state_dict(), CPU)
        assert other.images == {}
        assert "filled anew: gt_size is 16 now" in caplog.text

    def test_exception(self):
        with pytest.raises(OptionError, match=r"^queue_size: 5 .* 2"):
            PairQueue(5, 8).exchange(*pairs_of(0, 2))
        good = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        for state in ({"lq": good}, {"lq": good, "gt": good.float()}, {"lq": good[:1], "gt": good}):
            with pytest.raises(ValueError, match="the queue of training pairs"):
                PairQueue(4, 8).load_state_dict(state, CPU)


class TestSharpenedTargets:
    @pytest.mark.parametrize("option", ["l1_gt_usm", "percep_gt_usm", "gram_gt_usm", "gan_gt_usm", None])
    def test_which_terms_see_it(self, tiny_options, workdir, option, monkeypatch):
        """The step gets sharpened GT for one term, as OpenCV sharpens it, and GT for the others."""
        opt = resolved(tiny_options | ({option: True} if option else {}))
        model = GramGANModel(opt)
        model.feed_data(next(TrainingData(opt).batches(0))[-1])
        given: list[Any] = []
        monkeypatch.setattr(model, "step", lambda batch, iteration: given.append(batch) or _Done())
        model.optimize_parameters(1)
        (batch,) = given
        keys = {
            "l1_gt_usm": "l_g_pix",
            "percep_gt_usm": "l_g_percep",
            "gram_gt_usm": "l_g_gram",
            "gan_gt_usm": "l_g_gan",
        }
        for name, key in keys.items():
            if name != option:
                assert batch.target(key) is model.gt
                continue
            for image, target in zip(model.gt, batch.target(key), strict=True):
                expected = usm_sharp(image.permute(1, 2, 0).contiguous().numpy())
                assert np.abs(target.permute(1, 2, 0).numpy() - expected).max() < 1e-5
                assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() > 0.02

    def test_without_an_option_nothing_is_sharpened(self, tiny_options, workdir, monkeypatch):
        opt = resolved(tiny_options)
        model = GramGANModel(opt)
        monkeypatch.setattr(model, "sharpen", None)
        model.feed_data(next(TrainingData(opt).batches(0))[-1])
        model.optimize_parameters(1)


class _Done:
    sr = torch.zeros(1)
    log: dict[str, Tensor] = {}  # noqa: RUF012
