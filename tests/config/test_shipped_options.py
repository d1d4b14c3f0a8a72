"""Every option file in the package."""

import json
import re
from importlib.resources import files
from pathlib import Path

import basicsr  # noqa: F401
import pytest
import yaml
from basicsr.utils.options import ordered_yaml

from gramgan_plugin.archs import GramGANRealPhotoDiscriminator
from gramgan_plugin.cli.main import build_parser, main
from gramgan_plugin.config import check_options, load_options, resolve_options

SHIPPED = sorted(Path(str(entry)) for entry in files("gramgan_plugin.options").iterdir() if str(entry).endswith(".yml"))
FILES = [path for path in SHIPPED if not path.name.startswith("ablation_")]  # those: tests/ablation
FULL = [path for path in FILES if "sample" not in path.name]
LITE = [path for path in SHIPPED if "lite" in path.name]
EXPLAINED = [path for path in SHIPPED if path not in LITE and (path in FULL or path not in FILES)]


def _names(paths):
    return [path.stem for path in paths]


def test_they_are_there():
    assert {"train_gramgan_x4", "train_rrdb_psnr_x4", "train_gramgan_sample", "train_rrdb_psnr_sample"} <= set(
        _names(FILES)
    )
    assert {"test_gramgan_x4", "test_sample"} <= set(_names(FILES))
    assert {"train_gramgan_realphoto_x4", "train_gramgan_realphoto_sample"} <= set(_names(FILES))
    assert "train_gramgan_realesrgan_x4" in _names(FILES)


@pytest.mark.parametrize("path", SHIPPED, ids=_names(SHIPPED))
def test_upstreams_reader_and_ours_agree(path):
    with path.open() as stream:
        theirs = yaml.load(stream, Loader=ordered_yaml()[0])

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(member) for key, member in value.items()}
        return [plain(member) for member in value] if isinstance(value, list) else value

    def types(value):
        if isinstance(value, dict):
            return {key: types(member) for key, member in value.items()}
        return [types(member) for member in value] if isinstance(value, list) else type(value)

    ours = load_options([str(path)])
    assert plain(theirs) == ours
    assert types(plain(theirs)) == types(ours)


@pytest.mark.parametrize("path", FILES, ids=_names(FILES))
def test_they_pass_the_check(path, workdir):
    options = load_options([str(path)])
    check_options(options)
    resolve_options(options, is_train="train" in options)


def _keys_without_comment(text: str) -> list[str]:
    """Keys with a value, on lines where no comment stands, that are explained nowhere before."""
    explained, bare = set(), []
    for line in text.splitlines():
        code, hash_sign, _ = line.partition("#")
        key, colon, value = code.partition(":")
        if not colon or not value.strip():
            continue
        if hash_sign:
            explained.add(key.strip())
        elif key.strip() not in explained:
            bare.append(key.strip())
    return bare


@pytest.mark.parametrize("path", EXPLAINED, ids=_names(EXPLAINED))
def test_every_key_is_explained(path):
    assert _keys_without_comment(path.read_text()) == []


def test_the_small_files_use_keys_that_the_full_ones_explain():
    explained = set()
    for path in EXPLAINED:
        explained |= {line.split(":")[0].strip() for line in path.read_text().splitlines() if ":" in line.split("#")[0]}
    for path in {*FILES, *LITE} - {*EXPLAINED}:
        for line in path.read_text().splitlines():
            code, hash_sign, _ = line.partition("#")
            key, colon, value = code.partition(":")
            if colon and value.strip() and not hash_sign:
                assert key.strip() in explained, f"{path.name}: {key.strip()}"


def test_the_paper_settings():
    """What the paper states for training."""
    options = load_options(["train_gramgan_x4"])
    train, data = options["train"], options["datasets"]["train"]
    assert (data["gt_size"], data["batch_size_per_gpu"], options["scale"]) == (192, 8, 4)
    assert (data["use_hflip"], data["use_rot"]) == (True, True)
    assert (train["optim_g"]["lr"], train["optim_g"]["betas"], train["total_iter"]) == (1e-4, [0.9, 0.999], 600000)
    assert train["scheduler"] == {
        "type": "CosineRestartWarmupLR", "period": 200000, "warmup_iter": 2000, "eta_min": 1e-7,
    }  # fmt: skip
    weights = [
        train[f"{name}_opt"]["loss_weight"] for name in ("gram_patch", "disc_perceptual", "perceptual", "gan", "pixel")
    ]
    assert weights == [1.0, 1.0, 1.0, 0.005, 1.0]
    assert train["perceptual_opt"]["layer_weights"] == {"conv2_2": 1.0, "conv4_2": 0.1, "conv4_4": 0.01}
    assert options["network_g"] == {
        "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3,
        "num_feat": 64, "num_block": 23, "num_grow_ch": 32, "scale": 4,
    }  # fmt: skip


def test_the_recommended_settings_are_the_papers_but_for_what_is_marked():
    """Each key that differs stands on a line, or below one, that is marked as changed; all else is the paper's."""
    papers, ours = (load_options([name]) for name in ("train_gramgan_x4", "train_gramgan_x4_recommended"))
    assert {key for key in ours["train"] if papers["train"].get(key) != ours["train"][key]} == {
        *("d_penalty_opt", "pixel_opt", "gram_patch_opt", "perceptual_opt", "disc_perceptual_opt", "gan_opt"),
        "max_grad_ratio",
    }
    changed = {
        block: {key for key, value in ours["train"][block].items() if papers["train"][block].get(key) != value}
        for block in ("pixel_opt", "gram_patch_opt", "perceptual_opt", "disc_perceptual_opt", "gan_opt")
    }
    assert changed.pop("perceptual_opt") == {"loss_weight", "layer_weights"}
    assert changed.pop("gram_patch_opt") == {"loss_weight", "center"}
    assert set(map(tuple, changed.values())) == {("loss_weight",)}
    # The values are those of `centred` in the study.
    lite = load_options(["train_gramgan_lite_x4"])["train"]
    for block in ("pixel_opt", "gram_patch_opt", "perceptual_opt", "disc_perceptual_opt", "gan_opt"):
        assert ours["train"][block]["loss_weight"] == lite[block]["loss_weight"]
    assert ours["train"]["gram_patch_opt"]["center"] is lite["gram_patch_opt"]["center"] is True
    assert ours["train"]["perceptual_opt"]["layer_weights"] == lite["perceptual_opt"]["layer_weights"]
    assert ours["train"]["d_penalty_opt"] == lite["d_penalty_opt"]
    for section in ("network_g", "network_d", "datasets", "path"):
        assert ours[section] == papers[section]
    assert ours["val"]["metrics"].keys() - papers["val"]["metrics"].keys() == {"niqe"}
    assert ours["logger"].pop("keep_best") is None
    assert ours["logger"].items() <= papers["logger"].items()
    assert _path("train_gramgan_x4_recommended").read_text().count("# changed: ") == 11


def test_the_realphoto_settings():
    """What is given of GramGAN-RealPhoto, and what it shares with the paper's file."""
    options, papers = load_options(["train_gramgan_realphoto_x4"]), load_options(["train_gramgan_x4"])
    train, data = options["train"], options["datasets"]["train"]
    assert (data["batch_size_per_gpu"], train["total_iter"]) == (16, 200000)
    assert [train[f"optim_{letter}"]["lr"] for letter in "gd"] == [2e-4, 2e-4]
    assert options["network_d"] == {"type": "GramGANRealPhotoDiscriminator", "num_in_ch": 3, "num_feat": 64}
    texture = train["gram_patch_opt"]
    assert (texture["database_use"], texture["alpha"], texture["beta"]) == ("only", 0.5, 0.5)
    assert train["disc_perceptual_opt"]["criterion"] == "l1"
    assert GramGANRealPhotoDiscriminator.resolve_taps(train["disc_perceptual_opt"]["taps"]) == (
        GramGANRealPhotoDiscriminator.resolve_taps((5, 11))
    )
    assert train["perceptual_opt"]["layer_weights"] == "beby"
    for key in ("gan_opt", "pixel_opt", "ema_decay"):
        assert train[key] == papers["train"][key]
    assert options["network_g"] == papers["network_g"]


def _commands(path: Path) -> list[list[str]]:
    """The commands in an option file's head as words, without what stands in brackets beside them."""
    commands: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#   "):
            continue
        text = re.sub(r"\s{2,}\(.*\)$", "", line[1:].strip()).removesuffix("\\")
        if text.startswith("basicsr "):
            commands.append(text)
        else:
            commands[-1] += f" {text}"  # a continued line
    return [command.split() for command in commands]


@pytest.mark.parametrize("path", SHIPPED, ids=_names(SHIPPED))
def test_the_commands_in_its_head_are_understood(path):
    commands = _commands(path)
    assert commands
    for program, *arguments in commands:
        assert program == "basicsr"
        build_parser().parse_args(arguments)


def test_the_small_realphoto_file_trains(sample_pair, workdir):
    """Two iterations from the file as it is, over a database that the command in its head makes."""
    database = str(workdir / "textures.patchdb")
    (build,) = (command[1:] for command in _commands(_path("train_gramgan_realphoto_sample")) if "patchdb" in command)
    build[build.index("--source") + 1] = str(sample_pair / "GT.lmdb")
    build[build.index("--out") + 1] = database
    assert main(build) == 0
    where = "datasets:{}={}".format
    overrides = [
        where("train:dataroot_gt", sample_pair / "GT.lmdb"),
        where("train:dataroot_lq", sample_pair / "LQ_x4.lmdb"),
        where("val:dataroot_gt", sample_pair / "test/GT"),
        where("val:dataroot_lq", sample_pair / "test/LQ_x4"),
        "train:total_iter=2",
        "train:precision=fp32",
        "num_gpu=0",
        "network_g:num_feat=8",
        "network_d:num_feat=2",
        "path:pretrain_network_g=~",
        "logger:print_freq=1",
        "logger:use_tb_logger=false",
        f"train:gram_patch_opt:database={database}",
    ]
    assert main(["train", "-opt", "train_gramgan_realphoto_sample", "--force_yml", *overrides]) == 0
    lines = Path("experiments/GramGAN_RealPhoto_sample/metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    assert row["gram_database"] == 1, "database_use: only"
    assert min(row["l_g_gram"], row["grad_g_gram"], row["l_g_dp"], row["grad_g_dp"]) > 0


def test_the_realesrgan_file_trains(sample_pair, workdir):
    """An iteration from the file, smaller, and from its L1 stage, over an LMDB of this package."""
    where = "datasets:{}={}".format
    overrides = [
        where("train:dataroot_gt", sample_pair / "GT.lmdb"),
        where("train:batch_size_per_gpu", 1),
        where("train:num_worker_per_gpu", 0),
        where("val:dataroot_gt", sample_pair / "test/GT"),
        where("val:dataroot_lq", sample_pair / "test/LQ_x4"),
        *("num_gpu=0", "network_d:num_feat=2", "network_g:num_feat=4"),
        *("network_g:num_block=1", "train:total_iter=1", "train:perceptual_opt=~", "percep_gt_usm=false"),
        *("path:pretrain_network_g=~", "logger:print_freq=1", "logger:use_tb_logger=false"),
    ]
    file = ["train", "-opt", "train_gramgan_realesrgan_x4", "--force_yml"]
    commands = [words for _, *words in _commands(_path("train_gramgan_realesrgan_x4")) if "--force_yml" in words]
    (of_l1,) = (words[words.index("--force_yml") + 1 :] for words in commands)
    assert main([*file, *of_l1, *(one for one in overrides if not one.startswith("network_d"))]) == 0
    assert main([*file, *overrides]) == 0
    rows = [
        json.loads(Path(f"experiments/{name}/metrics.jsonl").read_text().splitlines()[0])
        for name in ("RRDBNet_RealESRGAN_x4", "GramGAN_RealESRGAN_x4")
    ]
    l1, gan = ({key for key in row if key.startswith("l_")} for row in rows)
    assert l1 == {"l_g_pix"}
    assert gan == {"l_g_pix", "l_g_gram", "l_g_dp", "l_g_gan", "l_d_real", "l_d_fake"}


def _path(name: str) -> Path:
    return next(path for path in FILES if path.stem == name)
