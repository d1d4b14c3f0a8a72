"""Training under MMEngine's runner, without MMagic and BasicSR's loop."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import basicsr as host  # noqa: F401
import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn

from gramgan_plugin import archs, losses
from gramgan_plugin.adapters.gramgan import KNOWN, GramGAN
from gramgan_plugin.adapters.mmengine_registration import register_all
from gramgan_plugin.adapters.optim_wrappers import GANOptimWrapperConstructor
from gramgan_plugin.adapters.restart_schedule import CosineRestartWarmupLR
from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.checkpoints.inspect_weights import describe_weights
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.weights_cache import ensure
from gramgan_plugin.cli.main import main
from gramgan_plugin.config import load_options
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.models.gramgan_model import GramGANModel
from tests.models.model_options import resolved

SHIPPED = Path(__file__).parents[2] / "options" / "mmagic"
NETWORK = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}
TRAIN = {
    "ema_decay": 0.9,
    "pixel_opt": {"type": "torch.nn.L1Loss"},
    "gram_patch_opt": {"type": "GramPatchLoss", "loss_weight": 1.0, "center": True},
    "disc_perceptual_opt": {"type": "DiscPerceptualLoss", "taps": ["conv1_0", "conv3_0"]},
    "gan_opt": {"type": "MaskedRaGANLoss", "loss_weight": 0.005},
}
ADAM = {"optimizer": {"type": "Adam", "lr": 1e-4}}


def model_options(**changes: Any) -> dict[str, Any]:
    return {
        "type": "GramGAN",
        "generator": {"type": "RRDBNet", **NETWORK},
        "discriminator": {"type": "GramGANDiscriminator", "num_feat": 4, "input_size": 64},
        "train": copy.deepcopy(TRAIN),
    } | changes


def configuration(folder: Path, iterations: int, **model: Any) -> Config:
    """What a user's configuration has, with small networks."""
    return Config(
        {
            "model": model_options(**model),
            "work_dir": "work",
            "train_dataloader": {
                "batch_size": 2,
                "num_workers": 0,
                "sampler": {"type": "InfiniteSampler", "shuffle": True},
                "collate_fn": {"type": "default_collate"},
                "dataset": {
                    "type": "PairedSRDataset",
                    "phase": "train",
                    "scale": 4,
                    "gt_size": 64,
                    "dataroot_gt": str(folder / "GT.lmdb"),
                    "dataroot_lq": str(folder / "LQ_x4.lmdb"),
                    "io_backend": {"type": "lmdb"},
                },
            },
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": 1000},
            "optim_wrapper": {"constructor": "GANOptimWrapperConstructor", "generator": ADAM, "discriminator": ADAM},
            "param_scheduler": {
                "type": "CosineRestartWarmupLR",
                "by_epoch": False,
                "period": 4,
                "warmup_iter": 2,
                "eta_min": 1e-6,
            },
            "default_hooks": {
                "logger": {"type": "LoggerHook", "interval": 1},
                "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False},
            },
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 0},
            "log_level": "ERROR",
            "default_scope": "mmengine",
            "experiment_name": f"run{len(list(Path().iterdir()))}",
        }
    )


def optimizers(model: nn.Module, **blocks: Any) -> OptimWrapperDict:
    return GANOptimWrapperConstructor(blocks or {"generator": ADAM, "discriminator": ADAM})(model)


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    gt = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return {"gt": gt, "lq": nn.functional.avg_pool2d(gt, 4)}


@pytest.fixture(autouse=True)
def registered() -> None:
    register_all()


class TestRegistration:
    @pytest.mark.parametrize("name", [*archs.__all__, *losses.__all__, "GramGAN", "RRDBNet"])
    def test_by_name(self, name: str) -> None:
        assert MODELS.get(name).__module__.startswith("gramgan_plugin.")

    def test_neither_basicsr_nor_mmagic_is_imported(self) -> None:
        code = "import sys, gramgan_plugin.adapters.mmengine_registration; print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert "mmengine" in found
        assert not {"basicsr", "mmagic", "gramgan_plugin.models"} & set(found)

    def test_the_package_does_not_import_mmengine(self) -> None:
        code = "import gramgan_plugin, basicsr, sys; print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert "gramgan_plugin.registration" in found
        assert "mmengine" not in found

    def test_the_dataset_takes_its_options_as_arguments(self, sample_pair: Path) -> None:
        options = configuration(sample_pair, 1).train_dataloader.dataset
        item = DATASETS.build(options)[0]
        assert (item["gt"].shape, item["lq"].shape) == ((3, 64, 64), (3, 16, 16))


class TestStep:
    def test_it_is_gramgan_models(self, tiny_options, workdir: Path) -> None:
        """Two iterations, the second with moments and an average, to the last bit."""
        tiny_options["logger"]["print_freq"] = 1000  # MMEngine's side diagnoses nothing
        theirs = GramGANModel(resolved(tiny_options))
        ours = GramGAN(
            RRDBNet(3, 3, **NETWORK),
            MODELS.build({"type": "GramGANDiscriminator", "num_feat": 4, "input_size": 64}),
            TRAIN,
        )
        ours.generator.load_state_dict(theirs.net_g.state_dict())
        ours.discriminator.load_state_dict(theirs.net_d.state_dict())
        ours.init_weights()
        wrappers = optimizers(ours)
        for iteration in (1, 2):
            data = batch(iteration)
            for optimizer in theirs.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = 1e-4
            theirs.feed_data(dict(data))
            theirs.optimize_parameters(iteration)
            log = ours.train_step(data, wrappers)
            assert log.keys() == theirs.log_dict.keys()
            for key, value in theirs.log_dict.items():
                torch.testing.assert_close(log[key], value, rtol=1e-5, atol=1e-7, msg=key)
        for name, net in (("net_g", ours.generator), ("net_d", ours.discriminator), ("net_g_ema", ours.generator_ema)):
            for key, value in getattr(theirs, name).state_dict().items():
                torch.testing.assert_close(net.state_dict()[key], value, rtol=1e-4, atol=1e-6, msg=f"{name} {key}")

    def test_without_a_discriminator(self) -> None:
        model = GramGAN({"type": "RRDBNet", **NETWORK}, train={"pixel_opt": {"type": "torch.nn.L1Loss"}})
        log = model.train_step(batch(), optimizers(model, generator=ADAM))
        assert set(log) == {"l_g_pix", "grad_norm_g"}
        assert not hasattr(model, "generator_ema")

    def test_accumulated_parts_give_the_gradient_of_the_whole(self) -> None:
        norms = []
        for accumulate in (1, 2):
            torch.manual_seed(0)
            train = {"pixel_opt": {"type": "torch.nn.L1Loss"}, "accumulate": accumulate}
            model = GramGAN({"type": "RRDBNet", **NETWORK}, train=train)
            norms.append(model.train_step(batch(), optimizers(model, generator=ADAM))["grad_norm_g"])
        torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=0)

    def test_a_gradient_is_clipped_before_the_step(self) -> None:
        torch.manual_seed(0)
        train = {"pixel_opt": {"type": "torch.nn.L1Loss"}, "clip_grad_norm_g": 1e-3}
        model = GramGAN({"type": "RRDBNet", **NETWORK}, train=train)
        before = [p.detach().clone() for p in model.generator.parameters()]
        sgd = {"optimizer": {"type": "SGD", "lr": 1.0}}
        log = model.train_step(batch(), optimizers(model, generator=sgd))
        moved = torch.stack(
            [(a - b.detach()).norm() for a, b in zip(before, model.generator.parameters(), strict=True)]
        )
        assert float(log["grad_norm_g"]) > 1e-2
        assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)

    def test_a_loss_that_reads_the_average(self) -> None:
        train = {"pixel_opt": {"type": "torch.nn.L1Loss"}, "ldl_opt": {"type": "ArtifactMapLoss"}, "ema_decay": 0.9}
        model = GramGAN({"type": "RRDBNet", **NETWORK}, train=train)
        assert float(model.train_step(batch(), optimizers(model, generator=ADAM))["l_g_ldl"]) > 0

    def test_a_non_finite_batch_changes_nothing_and_too_many_stop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gramgan_plugin.adapters.gramgan.REPORT_EVERY", 3)
        model = MODELS.build(model_options(train=TRAIN | {"max_nonfinite": 3}))
        wrappers, before = optimizers(model), copy.deepcopy(model.state_dict())
        bad = batch() | {"gt": torch.full((2, 3, 64, 64), torch.nan)}
        for _ in range(2):
            model.train_step(bad, wrappers)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
        with pytest.raises(TrainingStopped, match="3 iterations in a row"):
            model.train_step(bad, wrappers)


class TestRunner:
    def test_trains_resumes_and_becomes_basicsrs(
        self, sample_pair: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # MMEngine 0.10 unpickles its checkpoints, which torch refuses from 2.6 on.
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        runner = Runner.from_cfg(configuration(sample_pair, 2))
        runner.train()
        first = copy.deepcopy(runner.model.state_dict())
        again = configuration(sample_pair, 6)
        again.resume, again.load_from = True, "work/iter_2.pth"
        runner = Runner.from_cfg(again)
        runner.load_or_resume()
        assert runner.iter == 2
        for key, value in runner.model.state_dict().items():
            assert torch.equal(value, first[key]), key
        runner.train()
        model = runner.model
        assert model.iteration == 6, "the texture loss's draws go on where they were"
        # Steps of the optimizers since the start, in the checkpoint.
        saved = torch.load("work/iter_6.pth", weights_only=False)["optimizer"]
        assert {name: int(state["state"][0]["step"]) for name, state in saved.items()} == {
            "generator": 6,
            "discriminator": 6,
        }
        assert main(["convert", "work/iter_6.pth", "--to", "basicsr", "-o", "net_g.pth"]) == 0
        content = torch.load("net_g.pth", weights_only=True)
        facts = describe_weights("work/iter_6.pth")
        net = RRDBNet(3, 3, **NETWORK)
        own = net.state_dict()
        assert (facts["tensors"], facts["parameters"]) == (len(own), sum(value.numel() for value in own.values()))
        assert facts["other_tensors"] == len(first) - len(own), (
            "the discriminator, and the generator that is not averaged"
        )
        net.load_state_dict(content["params_ema"])
        image = batch()["lq"]
        with torch.no_grad():
            torch.testing.assert_close(net(image), model(image))

    def test_the_schedule_is_basicsrs_sides(self, sample_pair: Path, workdir: Path, recwarn) -> None:
        seen: list[float] = []
        original = GramGAN.train_step

        def spy(self: GramGAN, data: Any, optim_wrapper: OptimWrapperDict) -> Any:
            seen.append(optim_wrapper["generator"].param_groups[0]["lr"])
            return original(self, data, optim_wrapper)

        runner = Runner.from_cfg(configuration(sample_pair, 6))
        runner.model.train_step = spy.__get__(runner.model)
        runner.train()
        peak, floor = 1e-4, 1e-6
        assert seen == pytest.approx([peak / 2, peak, peak, (peak + floor) / 2, peak / 2, peak])
        assert not [w for w in recwarn if "optimizer.step()" in str(w.message)]

    def test_the_shipped_sample(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two iterations of it, from the weights that come with the package."""
        assert main(["prepare", "sample"]) == 0
        config = Config.fromfile(SHIPPED / "gramgan_sample_mmengine.py")
        config.train_cfg.max_iters = config.default_hooks.checkpoint.interval = 2
        config.train_dataloader |= {"batch_size": 1, "num_workers": 0}
        Runner.from_cfg(config).train()
        assert main(["convert", f"{config.work_dir}/iter_2.pth", "--to", "basicsr", "-o", "net_g.pth"]) == 0
        start = safetensors.torch.load_file(ensure(WEIGHTS["4x-RRDB-Lite"]))
        content = torch.load("net_g.pth", weights_only=True)["params_ema"]
        moved = max(float((content[name] - value).abs().max()) for name, value in start.items())
        assert 0 < moved < 1e-3

    def test_the_shipped_ones_name_what_is_there(self) -> None:
        """MMagic's configuration is run by tests/mmagic/run.sh; its `train` section is that of the option file."""
        config = Config.fromfile(SHIPPED / "gramgan_x4_div2k.py")
        ours = load_options(["train_gramgan_x4"])["train"]
        for name, block in config.model.train.items():
            given = block.to_dict() if isinstance(block, Config | dict) else block
            known = ours[name]
            assert given == ({key: known[key] for key in given} if isinstance(given, dict) else known), name
        assert {key for key in ours if key.endswith("_opt")} <= set(config.model.train)
        schedule = {key: ours["scheduler"][key] for key in ("period", "warmup_iter", "eta_min")}
        assert {key: config.param_scheduler[key] for key in schedule} == schedule
        assert config.max_iters == ours["total_iter"]


class TestEvaluation:
    def test_levels_for_mmagics_metrics(self) -> None:
        model = MODELS.build(model_options()).eval()
        data = {"lq": torch.rand(1, 3, 12, 16), "gt": torch.rand(1, 3, 48, 64), "gt_path": ["a.png"]}
        (result,) = model.val_step(data)
        with torch.no_grad():
            expected = model.generator_ema(data["lq"])[0]
        assert torch.equal(result["output"]["pred_img"], (expected.clamp(0, 1) * 255).round()[[2, 1, 0]])
        assert torch.equal(result["gt_img"], (data["gt"][0] * 255).round()[[2, 1, 0]])
        assert result["gt_path"] == "a.png"
        assert model.test_step(data)[0].keys() == result.keys()

    def test_images_of_any_size_for_networks_that_shuffle(self) -> None:
        class RRDBNet(nn.Module):  # as MMagic's at scale 2
            upscale_factor = 2

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                assert all(side % 2 == 0 for side in x.shape[-2:])
                return nn.functional.interpolate(x, scale_factor=2)

        model = GramGAN(RRDBNet(), train={"pixel_opt": {"type": "torch.nn.L1Loss"}})
        image = torch.rand(1, 3, 5, 7)
        assert torch.equal(model(image), nn.functional.interpolate(image, scale_factor=2))

    def test_training_is_no_forward(self) -> None:
        with pytest.raises(ValueError, match="mode: 'loss'"):
            MODELS.build(model_options())(torch.rand(1, 3, 8, 8), mode="loss")


class TestWeights:
    def test_pretrained(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(1)
        source = RRDBNet(3, 3, **NETWORK)
        save_file(source.state_dict(), "start.safetensors")
        torch.save({"params": source.state_dict()}, "start.pth")
        for name in ("start.safetensors", "start.pth"):
            model = MODELS.build(model_options(pretrained=name))
            model.init_weights()
            for net in (model.generator, model.generator_ema):
                assert all(torch.equal(value, source.state_dict()[key]) for key, value in net.state_dict().items())
        monkeypatch.setattr(torch, "__version__", "2.5.1")
        MODELS.build(model_options(pretrained="start.safetensors")).init_weights()
        with pytest.raises(UserError, match=r"start\.pth: torch 2\.5\.1 cannot read it safely; convert it"):
            MODELS.build(model_options(pretrained="start.pth")).init_weights()

    def test_what_does_not_fit_is_refused(self, workdir: Path) -> None:
        save_file(RRDBNet(3, 3, 4, 1, 4).state_dict(), "small.safetensors")
        with pytest.raises(UserError, match=r"small\.safetensors"):
            MODELS.build(model_options(pretrained="small.safetensors")).init_weights()

    def test_the_average_stays_in_eval_mode(self) -> None:
        model = MODELS.build(model_options())
        assert model.train() is model
        assert (model.generator.training, model.generator_ema.training) == (True, False)


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "where", "what"),
        [
            ({"train": TRAIN | {"gram_pach_opt": {}}}, "model.train.gram_pach_opt", "did you mean 'gram_patch_opt'"),
            ({"train": TRAIN | {"optim_g": {}}}, "model.train.optim_g", "optim_wrapper.generator"),
            ({"train": TRAIN | {"gram_gt_usm": True}}, "model.train.gram_gt_usm", "not available"),
            ({"discriminator": None}, "model.network_d", "missing"),
            ({"train": [1]}, "model.train", "expected a dict"),
            ({"generator": 5}, "model.generator", "expected a network"),
            ({"generator": {"type": "RRDBNet", "scale": 4}}, "model.generator", "'scale'"),
            ({"discriminator": {"type": "Nope"}}, "model.discriminator", "Nope"),
            ({"train": {"ema_decay": 0.9}}, "model.train", "no loss is on"),
            (
                {"train": TRAIN | {"ema_decay": 0, "ldl_opt": {"type": "ArtifactMapLoss"}}},
                "model.train.ema_decay",
                "ldl",
            ),
            (
                {"data_preprocessor": ImgDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3)},
                "model.data_preprocessor.std",
                "255",
            ),
        ],
    )
    def test_when_built(self, change: dict[str, Any], where: str, what: str) -> None:
        with pytest.raises(OptionError) as caught:
            MODELS.build(model_options(**change))
        assert str(caught.value).startswith(f"{where}: ")
        assert what in str(caught.value)

    @pytest.mark.parametrize(
        ("block", "where"),
        [
            (
                {"gram_patch_opt": {"type": "GramPatchLoss", "pach_size": 3}},
                "model.train.gram_patch_opt.pach_size: unknown option of GramPatchLoss; did you mean 'patch_size'?",
            ),
            ({"gram_patch_opt": {"type": "GramPachLoss"}}, "model.train.gram_patch_opt.type"),
            ({"pixel_opt": [1]}, "model.train.pixel_opt: expected dict(type="),
            ({"disc_perceptual_opt": {"type": "DiscPerceptualLoss", "taps": ["conv9_0"]}}, "train.disc_perceptual_opt"),
            ({"ema_decay": 0, "extra_terms": {"x": {"type": "ArtifactMapLoss"}}}, "train.ema_decay"),
        ],
    )
    def test_with_the_first_batch(self, block: dict[str, Any], where: str) -> None:
        model = MODELS.build(model_options(train=TRAIN | block))
        with pytest.raises(OptionError) as caught:
            model.train_step(batch(), optimizers(model))
        assert str(caught.value).startswith(where)

    @pytest.mark.parametrize(
        ("blocks", "where"),
        [
            ({"generator": ADAM}, "optim_wrapper.discriminator: missing"),
            ({"generator": ADAM, "discriminator": ADAM, "critic": ADAM}, "optim_wrapper.critic: unknown"),
            ({"generator": ADAM | {"type": "AmpOptimWrapper"}}, "optim_wrapper.generator.type: AmpOptimWrapper"),
            (
                {"generator": ADAM | {"clip_grad": {"max_norm": 1}}},
                "optim_wrapper.generator.clip_grad: set model.train",
            ),
            ({"generator": ADAM | {"accumulative_counts": 4}}, "optim_wrapper.generator.accumulative_counts"),
            ({"generator": {"optimizer": {"type": "Adam"}}}, "optim_wrapper.generator.optimizer: needs"),
            (
                {"generator": {"optimizer": {"type": "Adam", "lr": -1.0}}, "discriminator": ADAM},
                "optim_wrapper.generator",
            ),
            ({"generator": {"lr": 1e-4}}, "optim_wrapper.generator: expected"),
            (
                {"generator": {"optimizer": {"type": "Nope", "lr": 1}}, "discriminator": ADAM},
                "optim_wrapper.generator.optimizer: ",
            ),
        ],
    )
    def test_of_the_optimizers(self, blocks: dict[str, Any], where: str) -> None:
        with pytest.raises(OptionError) as caught:
            optimizers(MODELS.build(model_options()), **blocks)
        assert str(caught.value).startswith(where)

    def test_an_optimizer_without_a_network(self) -> None:
        model = GramGAN({"type": "RRDBNet", **NETWORK}, train={"pixel_opt": {"type": "torch.nn.L1Loss"}})
        with pytest.raises(OptionError, match=r"optim_wrapper\.discriminator: but model\.discriminator is not given"):
            optimizers(model)

    def test_the_schedule_counts_iterations(self) -> None:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        for wrong in ({"by_epoch": True}, {"warmup_iter": 4}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                CosineRestartWarmupLR(optimizer, **({"period": 4} | wrong))

    def test_other_wrappers_are_refused(self) -> None:
        model = MODELS.build(model_options())
        plain = OptimWrapperDict(generator=OptimWrapper(torch.optim.Adam(model.generator.parameters())))
        with pytest.raises(OptionError, match="optim_wrapper: give constructor='GANOptimWrapperConstructor'"):
            model.train_step(batch(), plain)

    def test_batches_of_mmagic_need_its_preprocessor(self) -> None:
        model = MODELS.build(model_options(data_preprocessor=BaseDataPreprocessor()))
        with pytest.raises(OptionError, match=r"model\.data_preprocessor: missing"):
            model.train_step({"inputs": [torch.rand(3, 8, 8)], "data_samples": [object()]}, optimizers(model))


def test_each_option_is_one_of_the_train_section() -> None:
    """What is read here means what docs/options.md explains."""
    page = Path(__file__).parents[2].joinpath("docs", "options.md").read_text()
    for key in KNOWN:
        assert f"| `{key}`" in page, key
