"""Wrong option files: each ends in exit code 2 and one line a mistake, none in a traceback, none is let through."""

import string
import tempfile
from contextlib import suppress
from copy import deepcopy
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import yaml
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_all, check_options, load_options
from gramgan_plugin.errors import OptionError
from tests.messages import assert_message

DROP = object()
VGG = {"type": "VGGPerceptualLoss"}
GRAM = "train:gram_patch_opt"
DISC = "train:disc_perceptual_opt"
LAYERS = "train.perceptual_opt.layer_weights"
CROP = "datasets.train.gt_size"
MASK = {"window": 4, "stride": 4, "threshold": 0.005}
COSINE = {"type": "CosineAnnealingRestartLR", "periods": [2], "restart_weights": [1]}
ONE_CYCLE = {"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 2}

# (path -> value or DROP, where the message says that the mistake is, what kind it is)
WRONG: list[tuple[dict[str, Any], str, str]] = [
    # Keys that nothing reads.
    ({"val:metrics:psnr:test_y_chanel": True}, "val.metrics.psnr.test_y_chanel", "did you mean 'test_y_channel'"),
    ({f"{GRAM}:pach_size": 4}, "train.gram_patch_opt.pach_size", "did you mean 'patch_size'"),
    ({"train:pixle_opt": None}, "train.pixle_opt", "did you mean 'pixel_opt'"),
    ({"train:extra_loss": {"type": "L1Loss"}}, "train.extra_loss", "unknown option"),
    ({"trian": {}}, "trian", "did you mean 'train'"),
    ({"network_c": {"type": "RRDBNet"}}, "network_c", "unknown option; did you mean"),
    ({"network_g:num_feet": 8}, "network_g.num_feet", "did you mean 'num_feat'"),
    ({"path:pretrained_network_g": "x.pth"}, "path.pretrained_network_g", "did you mean 'pretrain_network_g'"),
    ({"val:val_frequency": 5}, "val.val_frequency", "did you mean 'val_freq'"),
    ({"logger:print_frq": 5}, "logger.print_frq", "did you mean 'print_freq'"),
    ({"logger:wandb": {"projct": "x"}}, "logger.wandb.projct", "did you mean 'project'"),
    ({"dist_params": {"backnd": "nccl"}}, "dist_params.backnd", "did you mean 'backend'"),
    ({"datasets:train:gtsize": 64}, "datasets.train.gtsize", "did you mean 'gt_size'"),
    ({"datasets:train:io_backend": {"typ": "lmdb"}}, "datasets.train.io_backend.typ", "unknown option"),
    ({"datasets:train:mean": [0.5]}, "datasets.train.mean", "unknown option of PairedSRDataset"),
    ({"train:gan_opt:mask": {**MASK, "treshold": 1}}, "train.gan_opt.mask.treshold", "did you mean 'threshold'"),
    ({"train:perceptual_opt": {**VGG, "layer_weights": {"conv5_1": None}}}, LAYERS, "names no layer"),
    ({"train:perceptual_opt": {**VGG, "layer_weights": {"conv6_1": 1}}}, f"{LAYERS}.conv6_1", "unknown option"),
    ({"model_type": "SRModel", "network_d": DROP, "train:gan_opt": DROP}, "train.gram_patch_opt", "of SRModel"),
    # Types that nothing is registered under.
    ({"model_type": "GramGANMode1"}, "model_type", "did you mean 'GramGANModel'"),
    ({"datasets:val:type": "PairdSRDataset"}, "datasets.val.type", "no dataset named 'PairdSRDataset'"),
    ({"train:optim_d:type": "Adamm"}, "train.optim_d.type", "no optimizer 'Adamm'; did you mean 'Adam"),
    ({"train:scheduler:type": "CosineLR"}, "train.scheduler.type", "no schedule named 'CosineLR'"),
    ({"network_g:type": ["RRDBNet"]}, "network_g.type", "no arch named"),
    # Missing keys.
    ({"name": DROP}, "name", "missing"),
    ({"model_type": DROP}, "model_type", "missing"),
    ({"scale": DROP}, "scale", "missing"),
    ({"datasets": DROP}, "datasets", "missing"),
    ({"datasets:train": DROP}, "datasets.train", "missing"),
    ({"datasets:train:name": DROP}, "datasets.train.name", "missing"),
    ({"datasets:train:type": DROP}, "datasets.train", "a section with a `type`"),
    ({"datasets:train:gt_size": DROP}, "datasets.train.gt_size", "missing"),
    ({"datasets:train:dataroot_lq": DROP}, "datasets.train.dataroot_lq", "missing"),
    ({"network_g": DROP}, "network_g", "missing"),
    ({"network_g:num_in_ch": DROP}, "network_g.num_in_ch", "missing"),
    ({"network_d": DROP}, "network_d", "missing, but train.disc_perceptual_opt and train.gan_opt"),
    ({"train:total_iter": DROP}, "train.total_iter", "missing"),
    ({"train:optim_g": DROP}, "train.optim_g", "missing"),
    ({"train:optim_g:lr": DROP}, "train.optim_g.lr", "missing"),
    ({"train:optim_d": DROP}, "train.optim_d", "missing"),
    ({"train:scheduler": DROP}, "train.scheduler", "missing"),
    ({"train:gan_opt": DROP}, "train.gan_opt", "missing"),
    ({"val:metrics:psnr:crop_border": DROP}, "val.metrics.psnr.crop_border", "missing"),
    # Values of another kind.
    ({"scale": "4"}, "scale", "whole number, not '4'; leave out the quotes"),
    ({"scale": 0}, "scale", "at least 1, not 0"),
    ({"num_gpu": "all"}, "num_gpu", "expected auto or a number"),
    ({"manual_seed": -1}, "manual_seed", "at least 0, not -1"),
    ({"train": [1]}, "train", "a section of options, not [1]"),
    ({"val:metrics": ["psnr"]}, "val.metrics", "a section of options"),
    ({"train:total_iter": 0}, "train.total_iter", "at least 1, not 0"),
    ({"train:total_iter": 2.5}, "train.total_iter", "whole number, not 2.5"),
    ({"train:ema_decay": 1.0}, "train.ema_decay", "less than 1, not 1.0"),
    ({"train:precision": "fp8"}, "train.precision", "one of fp32, bf16, fp16, auto, not 'fp8'"),
    ({"train:compile_networks": ["g", "e"]}, "train.compile_networks", "one of g, d, vgg, not 'e'"),
    ({"train:compile_networks": "g"}, "train.compile_networks", "a list of texts, not 'g'"),
    ({"train:accumulate": 0}, "train.accumulate", "at least 1, not 0"),
    ({"train:clip_grad_norm_g": -1}, "train.clip_grad_norm_g", "at least 0, not -1"),
    ({"train:channels_last": "yes"}, "train.channels_last", "true, false or auto, not 'yes'"),
    ({"train:pixel_opt:loss_weight": "heavy"}, "train.pixel_opt.loss_weight", "a number, not 'heavy'"),
    ({f"{GRAM}:center": [True]}, "train.gram_patch_opt.center", "true or false, not [True]"),
    ({f"{GRAM}:patch_size": 4.0}, "train.gram_patch_opt.patch_size", "whole number, not 4.0"),
    ({f"{GRAM}:downsample": 2}, "train.gram_patch_opt.downsample", "a list of whole numbers, not 2"),
    ({"network_g:num_feat": "64"}, "network_g.num_feat", "whole number, not '64'; leave out the quotes"),
    ({"network_g:num_feat": 0}, "network_g.num_feat", "at least 1, not 0"),
    ({"network_g:num_block": True}, "network_g.num_block", "whole number, not True"),
    ({"train:optim_g:betas": 0.9}, "train.optim_g.betas", "2 values, not 0.9"),
    ({"train:optim_g:betas": [0.9]}, "train.optim_g.betas", "2 values, not [0.9]"),
    ({"val:metrics:psnr:test_y_channel": "y"}, "val.metrics.psnr.test_y_channel", "true or false, not 'y'"),
    ({"val:metrics:psnr:better": "up"}, "val.metrics.psnr.better", "one of higher, lower, not 'up'"),
    ({"datasets:val:dataroot_gt": 3}, "datasets.val.dataroot_gt", "a path or a list of paths, not 3"),
    ({"datasets:train:prefetch_mode": "gpu"}, "datasets.train.prefetch_mode", "one of cpu, cuda, not 'gpu'"),
    ({"datasets:train:dataset_enlarge_ratio": 0.5}, "datasets.train.dataset_enlarge_ratio", "whole number"),
    ({"train:extra_terms": {"a": 3}}, "train.extra_terms.a", "a section with a `type`"),
    ({"train:extra_terms": {1: {"type": "L1Loss"}}}, "train.extra_terms", "the key 1 is not text"),
    # Values that a class refuses.
    ({f"{GRAM}:select_by": "colour"}, "train.gram_patch_opt.select_by", "one of gram, pixel, not 'colour'"),
    ({f"{GRAM}:radius": 2.0}, "train.gram_patch_opt.radius", "with scope 'local'"),
    ({"train:gan_opt:mask": "bebby"}, "train.gan_opt.mask", "one of gramgan, beby"),
    ({"train:gan_opt:mask": {**MASK, "stride": 2}}, "train.gan_opt.mask", "window must be at least 2 and stride 1"),
    ({"train:gan_opt": {"type": "GANLoss", "gan_type": "lsgna"}}, "train.gan_opt", "GANLoss: GAN type lsgna"),
    ({"train:pixel_opt:reduction": "avg"}, "train.pixel_opt", "L1Loss: Unsupported reduction mode: avg"),
    ({"train:perceptual_opt": {**VGG, "criterion": "l2"}}, "train.perceptual_opt.criterion", "one of l1, mse"),
    ({"train:optim_g:lr": -1.0}, "train.optim_g", "Adam: Invalid learning rate: -1.0"),
    ({"train:scheduler:warmup_iter": 100}, "train.scheduler", "CosineRestartWarmupLR: warmup_iter must"),
    ({"train:scheduler": {**COSINE, "restart_weights": [1, 1]}}, "train.scheduler", f"{COSINE['type']}: periods"),
    # What does not fit together.
    ({"datasets:train:gt_size": 66}, "datasets.train.gt_size", "66 is not a multiple of scale 4"),
    ({"datasets:train:gt_size": 96}, "datasets.train.gt_size", "96, but network_d.input_size is 64"),
    ({"network_d:input_size": 100}, "network_d.input_size", "one of 64, 96, 128, 192, 256, not 100"),
    ({"network_d": {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4}}, CROP, "by default 128"),
    ({f"{GRAM}:patch_size": 5}, CROP, "64 is not a multiple of train.gram_patch_opt.patch_size 5"),
    ({"train:gan_opt:mask": {**MASK, "window": 6, "stride": 6}}, CROP, "not a multiple of train.gan_opt.mask.window 6"),
    ({f"{DISC}:taps": ["conv4_0"]}, "train.disc_perceptual_opt.taps", "no convolution 'conv4_0'"),
    ({f"{DISC}:taps": DROP}, "train.disc_perceptual_opt.taps", "no convolution 'conv5_0' at input size 64"),
    ({"network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}}, "network_d.type", "its features"),
    ({"network_g:num_in_ch": 1}, "network_g.num_in_ch", "1, but images of datasets.train have 3"),
    ({"network_g:num_grow_ch": None}, "network_g.num_grow_ch", "whole number, not null"),
    ({"train:pixel_opt:reduction": "none"}, "train.pixel_opt.reduction", "no single number"),
    ({"network_d:num_in_ch": 1}, "network_d.num_in_ch", "1, but network_g.num_out_ch is 3"),
    ({"network_g:scale": 2}, "network_g.scale", "2, but scale at the top of the file is 4"),
    ({"scale": 2, "network_g:scale": DROP}, "network_g.scale", "missing; RRDBNet enlarges by 4, but scale is 2"),
    ({"network_g:scale": 3}, "network_g.scale", "one of 1, 2, 4, not by 3"),
    ({"train:scheduler": COSINE}, "train.scheduler.periods", "sum to 2, less than train.total_iter 4"),
    ({"train:scheduler": ONE_CYCLE}, "train.scheduler.total_steps", "ends after 2 steps"),
    ({"train:scheduler": {"type": "ReduceLROnPlateau"}}, "train.scheduler.type", "needs a measured"),
    ({f"{GRAM}:type": "L1Loss"}, "train.gram_patch_opt.type", "L1Loss cannot be used here"),
    ({"train:extra_terms": {"a": {"type": "MaskedRaGANLoss"}}}, "train.extra_terms.a.type", "cannot be used here"),
    ({"datasets:val:lq": "bicubic"}, "datasets.val.lq", "comes from dataroot_lq or is made from GT"),
    ({"datasets:train:filename_tmpl": "x4"}, "datasets.train.filename_tmpl", "expected one {}"),
    ({"datasets:vla": {"name": "x", "type": "PairedSRDataset"}}, "datasets.vla", "did you mean 'val'"),
    ({"datasets:train_2": {"name": "x", "type": "PairedSRDataset"}}, "datasets.train_2", "only training set"),
    ({"datasets:val_2": {"name": "heldout", "type": "PairedSRDataset"}}, "datasets.val_2.name", "of datasets.val"),
    ({"name": "../x"}, "name", "cannot be a folder's name"),
    ({"datasets:val:name": "a/b"}, "datasets.val.name", "'a/b' cannot be a folder's name"),
]


def _changed(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    options = deepcopy(options)
    for path, value in changes.items():
        *way, last = path.split(":")
        section = options
        for key in way:
            section = section[key]
        if value is DROP:
            del section[last]
        else:
            section[last] = deepcopy(value)
    return options


def _check(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["check", *arguments])
    return code, capsys.readouterr().err


class TestWrongFiles:
    def test_there_are_enough(self):
        assert len(WRONG) >= 40

    @pytest.mark.parametrize(("changes", "where", "kind"), WRONG, ids=[f"{key}: {kind}" for _, key, kind in WRONG])
    def test_one_line_and_exit_code_2(self, changes, where, kind, tiny_options, write_options, capsys):
        code, printed = _check(["-opt", write_options(_changed(tiny_options, changes))], capsys)
        assert code == 2
        assert_message(printed, f"basicsr check: {where}", kind)
        assert "Traceback" not in printed
        assert all(line.startswith("basicsr check: ") for line in printed.splitlines())

    def test_all_at_once(self, tiny_options, write_options, capsys):
        changes = {"scale": 0, f"{GRAM}:pach_size": 4, "train:optim_d:lrr": 1, "datasets:val:name": "a/b", "oops": 1}
        code, printed = _check(["-opt", write_options(_changed(tiny_options, changes))], capsys)
        assert code == 2
        for key in ("scale", "train.gram_patch_opt.pach_size", "train.optim_d.lrr", "datasets.val.name", "oops"):
            assert f"basicsr check: {key}: " in printed

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name: !!python/object/apply:os.system ['touch pwned']\n", "could not determine a constructor"),
            ("name: !!python/name:os.system\n", "could not determine a constructor"),
            ("train: !!python/object/new:os.system [touch pwned]\n", "could not determine a constructor"),
            ("name: a\nname: b\n", "'name' appears twice"),
            ("- 1\n", "is a mapping"),
            ("train: &a [*a]\n", "an anchor holds itself"),
            ("train: &a {x: *a}\n", "an anchor holds itself"),
            ("on: 1\n", "the key True is not text"),
            ("a: [1\n", "line 2"),
        ],
    )
    def test_yaml(self, text, message, workdir, capsys):
        (workdir / "wrong.yml").write_text(text)
        code, printed = _check(["-opt", "wrong.yml"], capsys)
        assert code == 2
        assert message in printed
        assert not (workdir / "pwned").exists()

    def test_train_and_test_refuse_them_before_anything_is_made(self, tiny_options, write_options, workdir, capsys):
        name = write_options(_changed(tiny_options, {"val:metrics:psnr:test_y_chanel": True}))
        for command in ("train", "test"):
            assert main([command, "-opt", name]) == 2
            assert "did you mean 'test_y_channel'?" in capsys.readouterr().err
        assert [path.name for path in workdir.iterdir()] == [name]

    def test_unharmed(self, tiny_options, write_options, capsys):
        assert _check(["-opt", write_options(tiny_options)], capsys) == (0, "")


FILES = [one for one in files("gramgan_plugin.options").iterdir() if one.name.startswith(("train_", "test_"))]
SHIPPED = [load_options([str(one)]) for one in FILES]
# What a number, a text or a path can be at worst.
NASTY = (
    *(10**30, -(10**30), 10**5000, 1e308, -1e308, 2**63, 1e15, 5e-324, float("inf"), float("nan")),
    *("~nouser/x", "a\0b", "\ud800", "a" * 300, "a/" * 3000, "x" * 900_000, "\x1b[2J", "\u202e", "{}" * 9, "%s", ""),
    *([[[[]]]], [10**30], ["a"] * 9, {"type": []}, {"type": "x" * 9999}, {"type": None}, b"x", {1, 2}),
    date(2001, 1, 1),
)
VALUES = st.one_of(
    st.sampled_from(NASTY),
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-1, 9), max_size=3),
    st.dictionaries(st.text(string.ascii_lowercase, max_size=4), st.integers(0, 3), max_size=2),
)


def _places(section: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all keys."""
    if not isinstance(section, dict):
        return []
    return [place for key, value in section.items() for place in ((*path, key), *_places(value, (*path, key)))]


def _at(options: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        options = options[key]
    return options


@st.composite
def _option_files(draw):
    options = deepcopy(draw(st.sampled_from(SHIPPED)))
    return options, draw(st.sampled_from(_places(options)))


def _exit_code(options: dict[str, Any]) -> int:
    """What ``basicsr check --no-files`` ends with; any other exception than these fails the test."""
    with suppress(OptionError):  # most files are not there; looking for them must not end in a traceback either
        check_all(options, lambda line: None)
    try:
        check_options(options)
    except OptionError as error:
        return error.exit_code if str(error) else -1
    return 0


class TestBounds:
    """However large what is given, the answer is short, and comes at once."""

    @pytest.mark.parametrize("value", [10**30, 1e30, -1e16, 10**5000], ids=["int", "float", "negative", "digits"])
    @pytest.mark.parametrize("key", ["train:pixel_opt:loss_weight", "scale", "val:val_freq", "train:optim_g:lr"])
    def test_numbers(self, tiny_options, key, value):
        with pytest.raises(OptionError) as caught:
            check_options(_changed(tiny_options, {key: value}))
        line = str(caught.value).splitlines()[0]
        assert line.startswith(f"{key.replace(':', '.')}: must be at most 1e+15, not ")
        assert len(line) < 200

    def test_in_lists(self, tiny_options):
        with pytest.raises(OptionError, match=r"^train\.optim_g\.betas: must be at most 1e\+15, not 1000000"):
            check_options(_changed(tiny_options, {"train:optim_g:betas": [0.9, 10**30]}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "x" * 1_000_000},
            {"x" * 1_000_000: 1},
            {"model_type": "x" * 1_000_000},
            {"network_g:type": "x" * 1_000_000},
            {"network_g:" + "x" * 1_000_000: 1},
            {"train:optim_g:type": "x" * 1_000_000},
            {"train:scheduler:type": "x" * 1_000_000},
            {"datasets:val:name": "x" * 1_000_000},
            {"datasets:val:type": "x" * 1_000_000},
            {"datasets:val:dataroot_gt": "x" * 1_000_000},
            {"datasets:val:dataroot_gt": ["x/" * 500_000]},
            {"logger:keep_best": "x" * 1_000_000},
            {"train:perceptual_opt": {**VGG, "layer_weights": {"x" * 1_000_000: 1}}},
            {"train:perceptual_opt": {**VGG, "vgg_weights": "x" * 1_000_000}},
            {"train:gan_opt:mask": "x" * 1_000_000},
            {"train:pixel_opt:reduction": "x" * 1_000_000},
            {f"{GRAM}:database": "x" * 1_000_000},
        ],
        ids=lambda changes: next(iter(changes))[:30],
    )
    def test_text(self, tiny_options, changes):
        with pytest.raises(OptionError) as caught:
            check_all(_changed(tiny_options, changes), lambda line: None)
        lines = str(caught.value).splitlines()
        assert max(map(len, lines)) <= 1000

    @pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\u2028", "\x1b[2J"])
    @pytest.mark.parametrize(
        "key",
        ["name", "model_type", "network_g:type", "train:pixel_opt:type", "train:optim_g:type", "datasets:val:type"],
    )
    def test_ends_of_lines(self, tiny_options, write_options, capsys, key, end):
        code, printed = _check(["-opt", write_options(_changed(tiny_options, {key: f"a{end}b"}))], capsys)
        assert code == 2
        assert all(line.startswith("basicsr check: ") and line.isprintable() for line in printed.splitlines())

    def test_ends_of_lines_in_overrides(self, tiny_options, write_options, capsys):
        for override in ("a\nb", "no:x\n\n=1", "name=[\n" + "x" * 9999):
            code, printed = _check(["-opt", write_options(tiny_options), "--force_yml", override], capsys)
            assert code == 2
            (line,) = printed.splitlines()
            assert len(line) < 500

    def test_a_long_name_that_no_file_system_takes(self, tiny_options):
        with pytest.raises(OptionError, match=r"^name: 'aaa.*cannot be a folder's name; .* 200 "):
            check_options(_changed(tiny_options, {"name": "a" * 201}))
        check_options(_changed(tiny_options, {"name": "a" * 200}))

    def test_many_mistakes(self, tiny_options):
        with pytest.raises(OptionError) as caught:
            check_all(_changed(tiny_options, {f"k{n}": 1 for n in range(3000)}), lambda line: None)
        *lines, last = str(caught.value).splitlines()
        assert len(lines) == 50
        assert last == "and 2950 more mistakes"

    @pytest.mark.parametrize(
        "path",
        ["~nouser/x", "a\0b", "\ud800", "a" * 300, "/".join(["a" * 200] * 30)],
        ids=["home", "nul", "surrogate", "name", "path"],
    )
    @pytest.mark.parametrize(
        "key",
        [
            "datasets:train:dataroot_gt",
            "datasets:val:dataroot_lq",
            "path:pretrain_network_g",
            "path:resume_state",
            f"{GRAM}:database",
        ],
    )
    def test_paths_that_can_be_none(self, tiny_options, write_options, capsys, key, path):
        code, printed = _check(["-opt", write_options(_changed(tiny_options, {key: path}))], capsys)
        assert code == 2
        assert key.replace(":", ".") in printed
        assert "Traceback" not in printed

    def test_a_long_line_on_the_terminal(self, workdir, capsys):
        code, printed = _check(["-opt", "x" * 100_000], capsys)
        assert code == 2
        assert len(printed) < 1100


# Sections whose keys are names of the user's; val_1 is as good as val.
FREE_NAMES = [("val", "metrics"), ("datasets",), ("train", "extra_terms")]


class TestMutations:
    def test_unmutated(self):
        assert [_exit_code(options) for options in SHIPPED] == [0] * len(SHIPPED)

    @settings(max_examples=150, deadline=None)
    @given(_option_files(), st.data())
    def test_a_misspelt_key(self, file, data):
        options, place = file
        parent, key = _at(options, place[:-1]), place[-1]
        assume(place[:-1] not in FREE_NAMES)
        where = data.draw(st.integers(0, len(key) - 1))
        typo = key[:where] + data.draw(st.sampled_from(["", "x", key[where] * 2])) + key[where + 1 :]
        assume(typo and typo not in parent and not _means_something(place[:-1], typo))
        parent[typo] = parent.pop(key)
        assert _exit_code(options) == 2

    @settings(max_examples=100, deadline=None)
    @given(_option_files(), st.text(string.ascii_lowercase + "_", min_size=3, max_size=12), VALUES)
    def test_an_unknown_key(self, file, name, value):
        options, place = file
        assume(place[:-1] not in FREE_NAMES)
        parent = _at(options, place[:-1])
        assume(name not in parent and not _means_something(place[:-1], name))
        parent[name] = value
        assert _exit_code(options) == 2

    @settings(max_examples=250, deadline=None)
    @given(_option_files(), VALUES)
    def test_another_value(self, file, value):
        options, place = file
        _at(options, place[:-1])[place[-1]] = value
        assert _exit_code(options) in (0, 2)

    @settings(max_examples=100, deadline=None)
    @given(_option_files())
    def test_a_key_left_out(self, file):
        options, place = file
        del _at(options, place[:-1])[place[-1]]
        assert _exit_code(options) in (0, 2)

    @settings(max_examples=50, deadline=None)
    @given(_option_files(), VALUES)
    def test_another_value_as_a_file(self, file, value):
        options, place = file
        _at(options, place[:-1])[place[-1]] = value
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mutated.yml"
            try:
                path.write_text(yaml.safe_dump(options), encoding="utf-8")
            except ValueError:  # Python writes no whole number of more than 4,300 digits
                reject()
            assert main(["check", "-opt", str(path), "--no-files"]) in (0, 2)


def _means_something(section: tuple[str, ...], name: str) -> bool:
    """Whether a name that chance made is one that may stand there."""
    from gramgan_plugin.config.json_schema import json_schema

    return f'"{name}"' in _SCHEMA.setdefault("text", str(json_schema()).replace("'", '"'))


_SCHEMA: dict[str, str] = {}
