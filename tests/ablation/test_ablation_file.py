"""Ablation files: what they mean, and mistakes in them."""

from contextlib import suppress
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.ablation.ablation_file import read_ablation, with_iterations
from gramgan_plugin.config import check_options, load_options
from gramgan_plugin.errors import OptionError
from gramgan_plugin.losses import GramPatchLoss
from tests.messages import assert_message

SAMPLE = "ablation_gramgan_sample"
PLAIN = {"base": "train_gramgan_sample.yml", "variants": {"full": None}, "test": {"data": "sets"}}


def _changed(one: Any, other: Any, where: str = "") -> dict[str, Any]:
    """Each key that differs, with its value in the second."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: dict[str, Any] = {}
        for key in one.keys() | other.keys():
            found |= _changed(one.get(key), other.get(key), f"{where}.{key}" if where else key)
        return found
    return {} if one == other else {where: other}


class TestShipped:
    def test_one_key_apart(self, workdir):
        ablation = read_ablation(SAMPLE)
        runs = {run.variant: run.options for run in ablation.runs if run.seed == 1}
        texture = "train.gram_patch_opt"
        changed = {variant: _changed(runs["full"], options) for variant, options in runs.items()}
        for own in changed.values():
            own.pop("name", None)
        assert changed == {
            "full": {},
            "uncentred": {f"{texture}.center": False},
            "without_texture": {texture: None},
            "without_disc_perceptual": {"train.disc_perceptual_opt": None},
            "without_mask": {"train.gan_opt.mask": None},
            "one_to_one": {f"{texture}.alpha": 0},
            "pixel_loss": {f"{texture}.loss_on": "pixel"},
            "pixel_pixel": {f"{texture}.loss_on": "pixel", f"{texture}.select_by": "pixel"},
            "database": {
                f"{texture}.database": "datasets/sample/textures.patchdb",
                f"{texture}.database_use": "also",
            },
        }
        expected = {"name": "GramGAN_sample-full-s1", "manual_seed": 1}
        expected |= {"train.precision": "fp32", "train.channels_last": False}
        assert _changed(load_options(["train_gramgan_sample"]), runs["full"]) == expected
        assert (ablation.baseline, [run.seed for run in ablation.runs[:4]]) == ("full", [0, 1, 2, 0])

    @pytest.mark.parametrize("name", [SAMPLE, "ablation_lite", "ablation_starts_lite", "ablation_systems_lite"])
    def test_they_pass_the_check(self, name, workdir):
        for run in read_ablation(name).runs:
            assert check_options(run.options, is_train=True) == []

    def test_alpha_0_compares_with_gts_own_patch(self):
        """By Gram matrices of both patches at a place, in float64."""
        generator = torch.Generator().manual_seed(3)
        sr, gt = (torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
        differences = []
        for row in range(0, 16, 4):
            for column in range(0, 16, 4):
                grams = []
                for image in (sr, gt):
                    patch = image[0, :, row : row + 4, column : column + 4].reshape(3, 16)
                    patch = patch - patch.mean(dim=1, keepdim=True)
                    grams.append(patch @ patch.T / 16)
                differences.append((grams[0] - grams[1]).abs().mean())
        loss = GramPatchLoss(alpha=0, center=True)(sr, gt)
        assert float(loss) == pytest.approx(float(sum(differences) / 16), rel=1e-6)


class TestMeaning:
    def test_bases_are_merged_as_by_opt(self, write_options, workdir):
        write_options({"train": {"optim_g": {"lr": 0.5}}}, "own.yml")
        content = PLAIN | {"base": ["train_gramgan_sample.yml", "own.yml"], "start_from": "mine.pth", "name": "other"}
        content |= {"variants": {"a": None, "b": {"path": {"pretrain_network_g": None}}}}
        first, second = read_ablation(write_options(content, "grid.yml")).runs
        merged = load_options(["train_gramgan_sample.yml", "own.yml"])
        changed = {"name": "other-a-s0", "path.pretrain_network_g": "mine.pth"}
        assert _changed(merged, first.options) == changed
        assert second.options["path"]["pretrain_network_g"] is None

    def test_starts(self, write_options, workdir):
        variants: dict[str, Any] = {"a": None, "b": {"path": {"pretrain_network_g": None}}}

        def starts() -> dict[str, str]:
            content = PLAIN | {"start_from": "mine.pth", "seeds": [0, 1], "variants": variants}
            return {label: run.name[-4:] for label, run in read_ablation(write_options(content)).starts().items()}

        assert starts() == {"start": "a-s0"}
        variants |= {"c": {"path": {"pretrain_network_g": "./mine.pth"}}}
        assert starts() == {"start": "a-s0"}, "the same file"
        variants |= {"d": {"path": {"pretrain_network_g": "other.pth"}}, "e": {"path": {"param_key_g": "params"}}}
        assert starts() == {"start of a": "a-s0", "start of d": "d-s0", "start of e": "e-s0"}

    def test_one_seed(self, write_options, workdir):
        content = PLAIN | {"seeds": [5, 1], "variants": {"a": None, "b": None, "c": None}, "one_seed": ["c", "a"]}
        runs = read_ablation(write_options(content)).runs
        assert [(run.variant, run.seed) for run in runs] == [("a", 5), ("b", 5), ("b", 1), ("c", 5)]

    def test_seeds(self, write_options, workdir):
        write_options({"manual_seed": 7}, "seven.yml")
        content = PLAIN | {"base": ["train_gramgan_sample.yml", "seven.yml"]}
        assert [run.seed for run in read_ablation(write_options(content)).runs] == [7]
        content |= {"seeds": [5, 1]}
        assert [run.name[-3:] for run in read_ablation(write_options(content)).runs] == ["-s5", "-s1"]

    def test_iterations(self, write_options, workdir):
        options = read_ablation(write_options(PLAIN | {"iterations": 60})).runs[0].options
        assert _changed(load_options(["train_gramgan_sample"]), options) == {
            "name": "GramGAN_sample-full-s0",
            "train.total_iter": 60,
            "train.scheduler.period": 60,
            "train.scheduler.warmup_iter": 2,
            "val.val_freq": 30,
            "logger.print_freq": 10,
            "logger.save_checkpoint_freq": 30,
        }

    @given(st.integers(2, 10**6), st.integers(1, 10**6))
    def test_a_schedule_is_not_shorter_than_the_run(self, total, iterations):
        """OneCycleLR's steps and the periods of restarts end no earlier, as the check demands."""
        shortest = total - (iterations <= total)
        for schedule in ({"total_steps": shortest}, {"periods": [total // 2, shortest - total // 2]}):
            changed = with_iterations({"train": {"total_iter": total, "scheduler": dict(schedule)}}, iterations)[
                "train"
            ]
            steps = changed["scheduler"].get("total_steps", sum(changed["scheduler"].get("periods", [])))
            assert steps >= changed["total_iter"] - 1

    def test_when_d_begins_and_its_noise_ends(self):
        options = {"total_iter": 100, "net_d_init_iters": 20, "instance_noise": {"sigma": 0.1, "until": 50}}
        changed = with_iterations({"train": options}, 10)["train"]
        assert changed == {"total_iter": 10, "net_d_init_iters": 2, "instance_noise": {"sigma": 0.1, "until": 5}}

    def test_what_means_none_stays(self):
        options = {"train": {"total_iter": 100, "warmup_iter": -1, "scheduler": {"warmup_iter": 0, "milestones": [50]}}}
        changed = with_iterations(options, 10)["train"]
        assert changed == {"total_iter": 10, "warmup_iter": -1, "scheduler": {"warmup_iter": 0, "milestones": [5]}}


class TestMistakes:
    @pytest.mark.parametrize("name", ["../x", "a/b", "-x", ".x", "a b", "a\n", "", "é", "x" * 300, 1, True, None])
    def test_hostile_names(self, name, workdir):
        (workdir / "grid.yml").write_text(yaml.safe_dump(PLAIN | {"variants": {name: None}}))
        with pytest.raises(OptionError, match=r"variants: .*cannot be a folder's name"):
            read_ablation("grid.yml")

    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            ({"variants": {"x" * 195: None}}, "variants." + "x" * 195, "at most 200"),
            ({"variants": {"GT": None}}, "variants.GT", "label for the originals"),
            ({"variants": {"a": 5}}, "variants.a", "options as in an option file"),
            ({"variants": {"a": {"name": "x"}}}, "variants.a.name", "each run has its own"),
            ({"variants": {"a": {"manual_seed": 1}}}, "variants.a.manual_seed", "each run has its own"),
            ({"variants": {}}, "variants", "missing"),
            ({"variants": ["a"]}, "variants", "a section of options"),
            ({"variant": {}}, "variant", "did you mean 'variants'"),
            ({"base": None}, "base", "missing"),
            ({"seeds": 3}, "seeds", "a list of whole numbers, not 3"),
            ({"seeds": [1, 1]}, "seeds", "given twice"),
            ({"one_seed": ["b"]}, "one_seed", "'b' is not a variant"),
            ({"seeds": [-1]}, "seeds", "at least 0"),
            ({"iterations": 0}, "iterations", "at least 1"),
            ({"baseline": "ful"}, "baseline", "did you mean 'full'"),
            ({"baseline": ["full"]}, "baseline", "expected text"),
            ({"test": {}}, "test.data", "missing"),
            ({"test": {"data": "x", "set": ["a"]}}, "test.set", "unknown option"),
            ({"test": {"data": "x", "metrics": ["psnr_x"]}}, "test.metrics", "one of psnr_y"),
            ({"name": "a/b"}, "name", "'a/b' cannot be a folder's name"),
        ],
    )
    def test_each_names_its_key(self, write_options, change, where, kind):
        with pytest.raises(OptionError) as caught:
            read_ablation(write_options(PLAIN | change))
        assert_message(caught.value, where, kind)
        assert len(str(caught.value).splitlines()) == 1

    @given(st.dictionaries(st.sampled_from([*PLAIN, "seeds", "common", "name", "x"]), st.from_type(object)))
    def test_any_values(self, tmp_path_factory, values):
        """A mistake is an ``OptionError``, never another exception."""
        path = tmp_path_factory.getbasetemp() / "any.yml"
        try:
            path.write_text(yaml.safe_dump(PLAIN | values))
        except yaml.YAMLError:
            return
        with suppress(OptionError):
            read_ablation(str(path))
