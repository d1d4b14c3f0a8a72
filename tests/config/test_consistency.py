"""Options that cannot work together, one for each thing that the check knows."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.config import check_options
from gramgan_plugin.errors import OptionError
from tests.messages import assert_message

upstream = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("upstream_options.py"))))
LOSSES = ("pixel_opt", "gram_patch_opt", "disc_perceptual_opt", "gan_opt")

Change = Callable[[dict[str, Any]], object]


def _set(path: str, value: Any) -> Change:
    def change(options: dict[str, Any]) -> None:
        *way, last = path.split(":")
        for key in way:
            options = options[key]
        options[last] = value

    return change


def _without(*paths: str) -> Change:
    def change(options: dict[str, Any]) -> None:
        for path in paths:
            section = options
            *way, last = path.split(":")
            for key in way:
                section = section[key]
            del section[last]

    return change


def _train(**changed: Any) -> Change:
    return lambda options: options["train"].update(changed)


def _data(**changed: Any) -> Change:
    return lambda options: options["datasets"]["train"].update(changed)


def _penalty(**block: Any) -> Change:
    return _train(d_penalty_opt={"type": "GradientPenalty", **block})


def _extra(**block: Any) -> Change:
    return _train(extra_terms={"x": block})


def _error(options: dict[str, Any], change: Change, **kwargs: Any) -> list[str]:
    change(options)
    with pytest.raises(OptionError) as caught:
        check_options(options, **kwargs)
    return str(caught.value).splitlines()


class TestOurs:
    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (_without(*(f"train:{key}" for key in LOSSES)), "train", "no loss is on"),
            (_set("datasets:val:filename_tmpl", "x4"), "datasets.val.filename_tmpl", "expected one {} as in '{}x4'"),
            (
                _set("train:gan_opt:mask", {"window": 200, "stride": 1, "threshold": 0.1}),
                "datasets.train.gt_size",
                "64 is too small for train.gan_opt.mask.window 200",
            ),
            (_set("train:gan_opt:mask", {"window": 4, "stride": 4}), "train.gan_opt.mask.threshold", "missing"),
            (_set("train:accumulate", 4), "train.accumulate", "batch_size_per_gpu of 2 cannot be split into 4"),
            (_set("train:accumulate", 0), "train.accumulate", "at least 1, not 0"),
            (_set("train:accumulate", "two"), "train.accumulate", "a whole number, not 'two'"),
            (_extra(type="WaveletLoss", levels=7), "train.extra_terms.x.levels", "7 need sides of 128 pixels"),
            (_extra(type="WaveletLoss", levels=100_000_000), "train.extra_terms.x.levels", "from 1 to 10, got 1e+08"),
            (_extra(type="GromovWassersteinLoss"), "train.extra_terms.x", "at least 4; batch_size_per_gpu is 2"),
            (_penalty(kind="r3"), "train.d_penalty_opt.kind", "one of wgan_gp"),
            (_penalty(type="L1Loss"), "train.d_penalty_opt.type", "L1Loss cannot be used here"),
            (_set("train:pixel_opt", {"type": "GradientPenalty"}), "train.pixel_opt.type", "GradientPenalty cannot be"),
            (_set("train:gan_opt:gan_type", "wgan"), "train.gan_opt.gan_type", "unknown option"),
            (_set("train:instance_noise", {"sigma": 0.1}), "train.instance_noise.until", "missing"),
            (_set("train:balance", {"type": "mean"}), "train.balance.type", "one of softmax, not 'mean'"),
            (_set("train:balance", {"temperature": 0}), "train.balance.temperature", "must be at least"),
            (_train(net_d_every=2, net_d_iters=2), "train.net_d_every", "together with train.net_d_iters"),
            (
                _train(compile=True, d_penalty_opt={"type": "GradientPenalty"}),
                "train.compile_networks",
                "leave out d: train.d_penalty_opt",
            ),
            (
                _train(ema_decay=0, ldl_opt={"type": "ArtifactMapLoss"}),
                "train.ema_decay",
                "missing, but train.ldl_opt",
            ),
            (
                _train(ema_decay=0, extra_terms={"l": {"type": "ArtifactMapLoss"}}),
                "train.ema_decay",
                "missing, but train.extra_terms.l",
            ),
            (
                _set("train:ldl_opt", {"type": "ArtifactMapLoss", "window": 129}),
                "datasets.train.gt_size",
                "64 is too small for train.ldl_opt.window 129",
            ),
            (_penalty(kind="wgan_gp"), "train.d_penalty_opt.kind", "a penalty for each sample"),
            (_penalty(loss_weight=-1), "train.d_penalty_opt.loss_weight", "must not be negative"),
            (
                _train(compile=True, compile_networks=3, d_penalty_opt={"type": "GradientPenalty"}),
                "train.compile_networks",
                "expected",
            ),
            (
                lambda o: (
                    _without("network_d", "train:gan_opt", "train:disc_perceptual_opt", "train:optim_d")(o),
                    _set("train:instance_noise", {"sigma": 0.1, "until": 9})(o),
                ),
                "network_d",
                "missing, but train.instance_noise",
            ),
            (_set("train:clip_grad_norm_g", 0), "train.clip_grad_norm_g", "0 would remove all gradients"),
            (_set("datasets:train:dataroot_gt", ["a", "b"]), "datasets.train.dataroot_lq", "1 paths for the 2"),
        ],
    )
    def test_errors(self, tiny_options, change, where, kind):
        assert_message(_error(tiny_options, change), where, kind)

    def test_what_is_missing_for_training_and_for_testing(self, tiny_options):
        tiny_options["datasets"].pop("val")
        assert_message(_error(tiny_options, lambda o: None, is_train=False), "datasets", "no test set")
        assert_message(_error(tiny_options, _without("train"), is_train=True), "train", "missing")

    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (_train(compile_mode="default"), "train.compile_mode", "no effect without train.compile"),
            (
                _train(compile_networks=["g"], compile_backend="eager"),
                "train.compile_networks, train.compile_backend",
                "no effect without train.compile",
            ),
            (
                lambda o: (
                    _without("network_d", "train:gan_opt", "train:disc_perceptual_opt", "train:optim_d")(o),
                    _set("train:clip_grad_norm_d", 1.0)(o),
                ),
                "train.clip_grad_norm_d",
                "no network_d",
            ),
            (_without("datasets:val"), "val", "no data set `val`"),
            (_without("val"), "datasets.val", "no section `val`"),
        ],
    )
    def test_warnings(self, tiny_options, change, where, kind):
        change(tiny_options)
        assert_message(check_options(tiny_options), where, kind)

    def test_weights_of_a_network_that_no_file_has(self, tiny_options):
        lines = _error(tiny_options, _set("path:pretrain_network_z", "z.pth"))
        assert_message(lines, "path.pretrain_network_z", "unknown option")

    def test_speed_that_is_in_order(self, tiny_options):
        tiny_options["train"] |= {"compile": True, "compile_mode": "default", "clip_grad_norm_g": 1.0}
        assert check_options(tiny_options) == []
        _without("network_d", "train:gan_opt", "train:disc_perceptual_opt", "train:optim_d")(tiny_options)
        assert check_options(tiny_options) == []

    @pytest.mark.parametrize(
        ("share", "kind"),
        [(-0.1, "at least 0, not -0.1"), (1.5, "at most 1, not 1.5"), ("1%", "a number, not '1%'")],
    )
    def test_no_share_of_unreadable_images(self, tiny_options, share, kind):
        lines = _error(tiny_options, _set("datasets:train:max_unreadable", share))
        assert_message(lines, "datasets.train.max_unreadable", kind)

    @pytest.mark.parametrize("share", [0, 0.01, 1])
    def test_a_share_of_unreadable_images(self, tiny_options, share):
        _set("datasets:train:max_unreadable", share)(tiny_options)
        assert check_options(tiny_options) == []
        _set("datasets:val:max_unreadable", share)(tiny_options)
        (warning,) = check_options(tiny_options)
        assert_message(warning, "datasets.val.max_unreadable", "only for training")

    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (_set("logger:keep_best", "ssim"), "logger.keep_best", "'ssim' is not under val.metrics; it has psnr"),
            (_without("val:metrics"), "logger.keep_best", "'psnr' is not under val.metrics; that is missing"),
            (_without("val"), "logger.keep_best", "nothing is validated"),
            (_without("datasets:val"), "logger.keep_best", "nothing is validated"),
            (_set("logger:keep_best", 3), "logger.keep_best", "text, not 3"),
            (_set("logger:keep_last", 0), "logger.keep_last", "at least 1, not 0"),
        ],
    )
    def test_which_checkpoints_to_keep(self, tiny_options, change, where, kind):
        tiny_options["logger"] |= {"keep_best": "psnr", "keep_last": None}
        assert check_options(tiny_options) == []
        assert_message(_error(tiny_options, change), where, kind)

    def test_what_any_model_and_run_takes(self, tiny_options):
        tiny_options |= {"deterministic": True}
        tiny_options["train"]["tf32"] = False
        assert check_options(tiny_options) == []
        srgan = upstream.esrgan()
        srgan["train"]["tf32"] = False
        check_options(srgan)
        assert_message(_error(tiny_options, _set("train:tf32", 1)), "train.tf32", "true or false, not 1")

    def test_rrdbnet_at_a_smaller_scale_takes_lq_in_blocks(self, tiny_options):
        tiny_options |= {"scale": 2}
        tiny_options["network_g"]["scale"] = 2
        check_options(tiny_options)
        _without("network_d", "train:gan_opt", "train:disc_perceptual_opt")(tiny_options)
        lines = _error(tiny_options, _set("datasets:train:gt_size", 66))
        assert_message(lines, "datasets.train.gt_size", "blocks of 2; take a multiple of 4")

    def test_what_is_computed_is_not_read(self, tiny_options):
        tiny_options["is_train"] = True
        (warning,) = check_options(tiny_options)
        assert_message(warning, "is_train", "computed")

    def test_a_third_partys_data_set_that_declares_nothing(self, tiny_options):
        from basicsr.utils.registry import DATASET_REGISTRY

        class SomebodysDatasetForTest:
            """Takes one dict, as data sets do."""

            def __init__(self, opt: dict[str, Any]) -> None:
                self.opt = opt

        DATASET_REGISTRY.register(SomebodysDatasetForTest)
        tiny_options["datasets"]["val"] = {"name": "x", "type": "SomebodysDatasetForTest", "whatever": 3}
        (warning,) = check_options(tiny_options)
        assert_message(warning, "datasets.val", "SomebodysDatasetForTest declares no options", "whatever")

    def test_what_a_run_without_a_discriminator_does_not_use(self, tiny_options):
        tiny_options["path"]["pretrain_network_d"] = "d.pth"
        _without("network_d", "train:gan_opt", "train:disc_perceptual_opt")(tiny_options)
        warnings = check_options(tiny_options)
        assert_message(warnings, "train.optim_d", "no network_d")
        assert_message(warnings, "path.pretrain_network_d", "no network_d")


def _without_gt(options: dict[str, Any], key: str = "val") -> None:
    options["datasets"][key] = {
        "name": f"photos of {key}".replace(" ", "_"),
        "type": "SingleImageDataset",
        "dataroot_lq": "photos",
        "io_backend": {"type": "disk"},
    }


class TestMetricsWithoutGT:
    NIQE: ClassVar = {"type": "calculate_niqe", "crop_border": 4, "better": "lower"}

    def test_the_best_by_a_metric_that_no_set_can_give(self, tiny_options):
        tiny_options["logger"]["keep_best"] = "psnr"
        (line,) = lines = _error(tiny_options, _without_gt)
        assert_message(line, "logger.keep_best", "'psnr' needs GT")
        tiny_options["datasets"]["val_2"] = {**tiny_options["datasets"]["val"], "name": "more"}
        assert _error(tiny_options, lambda options: None) == lines

    def test_one_that_needs_none(self, tiny_options):
        _without_gt(tiny_options)
        tiny_options["val"]["metrics"] = {"niqe": self.NIQE}
        tiny_options["logger"]["keep_best"] = "niqe"
        assert check_options(tiny_options) == []

    def test_one_set_of_several_can(self, tiny_options):
        _without_gt(tiny_options, "val_2")
        tiny_options["logger"]["keep_best"] = "psnr"
        tiny_options["val"]["metrics"]["niqe"] = self.NIQE
        (warning,) = check_options(tiny_options)
        assert_message(warning, "datasets.val_2", "no GT", "not measured: psnr")

    def test_a_list_that_is_null(self, tiny_options):
        """``SingleImageDataset`` opens it."""
        _without_gt(tiny_options)
        (line,) = _error(tiny_options, _set("datasets:val:meta_info_file", None))
        assert_message(line, "datasets.val.meta_info_file", "null")


class TestWindows:
    """Networks that divide LQ into windows."""

    @pytest.fixture
    def options(self, tiny_options) -> dict[str, Any]:
        _without("network_d", "train:gan_opt", "train:disc_perceptual_opt", "train:optim_d")(tiny_options)
        small = {"depths": [2], "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect"}
        tiny_options["network_g"] = {"type": "SwinIR", "upscale": 4, "img_size": 16, "window_size": 8, **small}
        return tiny_options

    @pytest.mark.parametrize(("crop", "window"), [(48, 8), (64, 7), (64, 6), (96, 16), (32, 16)])
    def test_no_multiple(self, options, crop, window):
        options["network_g"] |= {"window_size": window, "img_size": 3 * window}
        (line,) = _error(options, _set("datasets:train:gt_size", crop))
        kind = (f"{crop} gives LQ of {crop // 4}", f"window_size {window}", f"take a multiple of {4 * window}")
        assert_message(line, "datasets.train.gt_size", *kind)

    @pytest.mark.parametrize(("crop", "window"), [(32, 8), (64, 8), (96, 8), (64, 4), (48, 6)])
    def test_multiples_and_the_network_itself(self, options, crop, window):
        from gramgan_plugin.registries import lookup

        options["network_g"] |= {"window_size": window, "img_size": 3 * window}
        options["datasets"]["train"]["gt_size"] = crop
        assert check_options(options) == []
        block = {key: value for key, value in options["network_g"].items() if key != "type"}
        network = lookup("arch", "SwinIR", "network_g.type")(**block)
        assert network(torch.zeros(1, 3, crop // 4, crop // 4)).shape[-1] == crop
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, crop // 4 + 1, crop // 4 + 1))

    def test_its_default(self, options):
        del options["network_g"]["window_size"]  # 7
        options["network_g"]["img_size"] = 28
        (line,) = _error(options, lambda options: None)
        kind = ("64 gives LQ of 16", "window_size 7", "take a multiple of 28")
        assert_message(line, "datasets.train.gt_size", *kind)

    @pytest.mark.parametrize(("size", "window"), [(64, 7), (None, 7), ([16, 20], 8), (48, 32)])
    def test_what_its_constructor_refuses(self, options, size, window):
        from gramgan_plugin.registries import lookup

        options["network_g"] |= {"window_size": window, "img_size": size}
        if size is None:
            del options["network_g"]["img_size"]
        lines = _error(options, _set("datasets:train:gt_size", 4 * window))
        assert [line.partition(":")[0] for line in lines] == ["network_g.window_size"]
        with pytest.raises(RuntimeError):
            lookup("arch", "SwinIR", "")(**{key: value for key, value in options["network_g"].items() if key != "type"})

    def test_a_third_partys_may_pad(self, options):
        from basicsr.utils.registry import ARCH_REGISTRY

        class SomebodysWindows(torch.nn.Module):
            """May pad."""

            def __init__(self, window_size: int = 8) -> None:
                super().__init__()

        ARCH_REGISTRY.register(SomebodysWindows)
        options["network_g"] = {"type": "SomebodysWindows"}
        options["datasets"]["train"]["gt_size"] = 48
        (warning,) = check_options(options)
        kind = ("48 gives LQ of 12", "window_size 8", "if the network does not pad it, take a multiple of 32")
        assert_message(warning, "datasets.train.gt_size", *kind)


class TestUpstreams:
    @pytest.mark.parametrize(
        ("source", "change", "where", "kind"),
        [
            ("esrgan", _without("network_d"), "network_d", "missing"),
            ("rrdbnet_psnr", _without("train:pixel_opt"), "train", "no loss is on"),
            ("rrdbnet_psnr", _set("model_type", "SwinIRModel"), "network_g.window_size", "missing"),
            ("esrgan", _set("datasets:train:mean", [0.5, 0.5, 0.5]), "datasets.train.std", "missing"),
            ("real_esrgan", _without("datasets:train:meta_info"), "datasets.train.meta_info", "missing"),
            ("real_esrgan", _set("resize_prob", [0.5, 0.5]), "resize_prob", "3 probabilities"),
            ("real_esrgan", _set("noise_range2", [1, 2, 3]), "noise_range2", "the smallest and the largest value"),
            ("real_esrgan", _set("queue_size", 181), "queue_size", "181 is not a multiple of batch_size_per_gpu"),
            (
                "esrgan",
                _data(io_backend={"type": "lmdb"}, dataroot_gt="datasets/x"),
                "datasets.train.dataroot_gt",
                "a name that ends in .lmdb",
            ),
            ("real_esrgan", _set("gt_size", 252), "gt_size", "UNetDiscriminatorSN takes multiples of 8, not 252"),
            ("real_esrgan", _without("resize_range"), "resize_range", "missing"),
            ("real_esrgan", _data(kernel_prob2=[1.0]), "datasets.train.kernel_prob2", "1 values for 6 kernels"),
            ("real_esrgan", _train(ldl_opt={"type": "L1Loss"}, ema_decay=0), "train.ldl_opt", "the averaged weights"),
        ],
    )
    def test_errors(self, source, change, where, kind):
        assert_message(_error(getattr(upstream, source)(), change), where, kind)


def _gramgan() -> dict[str, Any]:
    """Real-ESRGAN's file for GramGANModel."""
    return upstream.real_esrgan() | {"model_type": "GramGANModel"}


class TestDegradation:
    @pytest.mark.parametrize("source", [_gramgan, upstream.real_esrgan], ids=["GramGANModel", "RealESRGANModel"])
    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (_without("jpeg_range2"), "jpeg_range2", "missing"),
            (_without("gt_size"), "gt_size", "missing"),
            (_set("resize_prob2", [0.5, 0.5]), "resize_prob2", "3 probabilities (enlarge, reduce, keep), not 2"),
            (_set("resize_prob", [0, 0, 0]), "resize_prob", "all probabilities are 0"),
            (_set("resize_range", [0, 1.5]), "resize_range", "a factor above 0 and at most 1"),
            (_set("resize_range2", [0.3, 0.9]), "resize_range2", "one of at least 1"),
            (_set("noise_range", [30, 1]), "noise_range", "smallest value, 30, is above the largest, 1"),
            (_set("noise_range", [-1, 30]), "noise_range", "at least 0, not -1"),
            (_set("poisson_scale_range2", [1]), "poisson_scale_range2", "the smallest and the largest value"),
            (_set("jpeg_range", [0, 95]), "jpeg_range", "from 1 to 100"),
            (_set("jpeg_range2", [30, 101]), "jpeg_range2", "from 1 to 100"),
            (_set("gray_noise_prob", 40), "gray_noise_prob", "a probability, at most 1, not 40"),
            (_set("second_blur_prob", 1.5), "second_blur_prob", "a probability, at most 1, not 1.5"),
            (_set("queue_size", 100), "queue_size", "100 is not a multiple of batch_size_per_gpu 12"),
            (_set("gt_size", 408), "gt_size", "408, but images of RealESRGANDataset have sides of 400"),
            (_set("scale", 3), "scale", "3 does not divide 400"),
            (_set("high_order_degradation", False), "high_order_degradation", "RealESRGANDataset has no LQ"),
            (
                _data(kernel_list=["isso", "aniso", "plateau_iso", "plateau_aniso", "iso", "iso"]),
                "datasets.train.kernel_list",
                "did you mean 'iso'",
            ),
            (_data(kernel_prob2=[0] * 6), "datasets.train.kernel_prob2", "all probabilities are 0"),
            (_data(blur_sigma=[3, 0.2]), "datasets.train.blur_sigma", "smallest value, 3, is above"),
            (_data(blur_sigma2=[1, 1]), "datasets.train.blur_sigma2", "two different numbers"),
            (_data(betap_range=[0, 2]), "datasets.train.betap_range", "two different numbers"),
            (_data(betag_range=[1]), "datasets.train.betag_range", "the smallest and the largest value"),
            (_data(sinc_prob=2), "datasets.train.sinc_prob", "a probability, at most 1, not 2"),
            (_data(final_sinc_prob=1.1), "datasets.train.final_sinc_prob", "a probability, at most 1, not 1.1"),
            (_set("jpeg_rnage", [30, 95]), "jpeg_rnage", "did you mean 'jpeg_range' or"),
        ],
    )
    def test_errors(self, source, change, where, kind):
        assert_message(_error(source(), change), where, kind)

    def test_shapes_of_kernels_may_be_fixed(self):
        options = _gramgan()
        options["datasets"]["train"]["betag_range"] = [2, 2]
        assert all("nothing is validated" in line for line in check_options(options))

    def test_the_files_pass(self):
        assert all("nothing is validated" in line for line in check_options(_gramgan()))
        pairs = upstream.real_esrgan_pairs() | {"model_type": "GramGANModel"}
        assert all("nothing is validated" in line for line in check_options(pairs))

    def test_a_data_set_with_its_own_lq(self, tiny_options, degradation):
        (line,) = _error(tiny_options | degradation, lambda options: None)
        assert_message(line, "gaussian_noise_prob", "PairedSRDataset", "has its own LQ", "14 more keys")

    @pytest.mark.parametrize("model", ["SRModel", "ESRGANModel", "RealESRNetModel", "RealESRGANModel", "GramGANModel"])
    def test_a_model_for_the_data_set(self, model):
        """Of the models, three make LQ; they refuse a data set of pairs, and the others one without LQ."""
        degraded = upstream.real_esrgan() | {"model_type": model}
        paired = upstream.esrgan() | {"model_type": model}
        found = []
        for options in (degraded, paired):
            try:
                check_options(options)
            except OptionError as error:
                found += [line for line in str(error).splitlines() if line.startswith("datasets.train.type")]
        message = {
            "SRModel": "datasets.train.type: RealESRGANDataset has no LQ, and SRModel ",
            "RealESRNetModel": "datasets.train.type: RealESRNetModel makes LQ ",
        }
        message |= {other: message[one].replace(one, other) for one, other in _ALIKE}
        assert [line.startswith(message[model]) for line in found] == ([True] if model in message else [])

    def test_only_for_training(self):
        options = _gramgan()
        options["datasets"]["val"] = options["datasets"]["train"] | {"name": "held_out"}
        lines = _error(options, lambda options: None)
        assert_message(lines, "datasets.val.type", "RealESRGANDataset is only for training")

    def test_sharpened_targets(self, tiny_options):
        assert check_options(tiny_options | {"l1_gt_usm": True, "gram_gt_usm": False}) == []
        (warning,) = check_options(tiny_options | {"percep_gt_usm": True})
        assert_message(warning, "percep_gt_usm", "no train.perceptual_opt")
        (line,) = _error(tiny_options, _set("l1_gt_usm", 1))
        assert_message(line, "l1_gt_usm", "true or false, not 1")
        tiny_options = tiny_options | {"l1_gt_usm": True}
        tiny_options["train"] = {
            key: value for key, value in tiny_options["train"].items() if key not in (*LOSSES[1:], "optim_d")
        }
        del tiny_options["network_d"]
        (line,) = _error(tiny_options, _set("datasets:train:gt_size", 24))
        assert_message(line, "datasets.train.gt_size", "24, but l1_gt_usm", "26 pixels")


_ALIKE = (("SRModel", "ESRGANModel"), ("RealESRNetModel", "RealESRGANModel"))


class TestSchedules:
    @pytest.mark.parametrize(
        ("schedule", "key"),
        [
            ({"type": "CosineAnnealingLR", "T_max": 0}, "T_max"),
            ({"type": "CosineAnnealingLR", "T_max": -1}, "T_max"),
            ({"type": "StepLR", "step_size": 0}, "step_size"),
            ({"type": "CosineAnnealingWarmRestarts", "T_0": 0}, "T_0"),
        ],
    )
    def test_a_length_of_nothing(self, tiny_options, schedule, key):
        lines = _error(tiny_options, _set("train:scheduler", schedule))
        assert_message(lines, f"train.scheduler.{key}", "at least 1")

    def test_a_rate_that_the_schedule_does_not_use(self, tiny_options):
        schedule = {"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 10}
        _set("train:scheduler", schedule)(tiny_options)
        warnings = check_options(tiny_options)
        assert_message(warnings, "train.optim_g.lr", "no effect", "train.scheduler.max_lr")
        for optimizer in ("optim_g", "optim_d"):
            tiny_options["train"][optimizer]["lr"] = 1e-3
        assert not [line for line in check_options(tiny_options) if "has no effect" in line]
