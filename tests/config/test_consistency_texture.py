"""Options of the texture loss: values, what goes together, the crop, and the database on the disk."""

import shutil
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_files, check_options
from gramgan_plugin.config.json_schema import json_schema
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.loss_building import build_loss
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.making.building import build
from gramgan_plugin.patchdb.making.settings import Settings
from tests.messages import assert_message

WHERE = "train.gram_patch_opt"
CROP = "datasets.train.gt_size"


def _problems(check: Any, options: dict[str, Any]) -> list[str]:
    try:
        check(options)
    except OptionError as error:
        return str(error).splitlines()
    return []


def _with(options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options["train"]["gram_patch_opt"] |= changes
    return options


@pytest.fixture(scope="module")
def database(sample_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small database with centred Gram matrices, as the tiny options have them."""
    path = tmp_path_factory.mktemp("patchdb") / "textures.patchdb"
    build([sample_pair / "GT.lmdb"], path, max_patches=300, definition=Definition(4, center=True), settings=Settings())
    return path


@pytest.fixture
def own_database(database: Path, workdir: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(database, "own.patchdb"))


class TestValues:
    @pytest.mark.parametrize(
        ("changes", "key", "kind"),
        [
            ({"database_use": "onyl"}, "database_use", "one of also, only, not 'onyl'"),
            ({"database_index": "ball"}, "database_index", "one of auto, exact, tree, hnsw, not 'ball'"),
            ({"database_index": "kdtree"}, "database_index", "write 'tree' for what was 'kdtree'"),
            ({"database": 3}, "database", "text or null, not 3"),
            ({"database": ""}, "database", "a path, not ''"),
            ({"top_k": 0}, "top_k", "at least 1, not 0"),
            ({"top_k": "all"}, "top_k", "whole number, not 'all'"),
            ({"stride": 0}, "stride", "at least 1, not 0"),
            ({"features": {}}, "features.layer", "missing"),
            ({"features": {"layer": "conv1_3"}}, "features.layer", "no layer 'conv1_3'; did you mean "),
            ({"features": {"layer": 3}}, "features.layer", "text, not 3"),
            ({"features": {"layer": ["conv1_2"]}}, "features.layer", "text, not ['conv1_2']"),
            ({"features": {"layer": "conv1_2", "weights": "x"}}, "features.weights", "did you mean 'vgg_weights'"),
            ({"features": "conv1_2"}, "features", "a section or null, not 'conv1_2'"),
            ({"databse": "x"}, "databse", "did you mean 'database'"),
            ({"scope": "image"}, "scope", "one of crop, local, not 'image'"),
        ],
    )
    def test_refused(self, tiny_options, changes, key, kind):
        (line,) = _problems(check_options, _with(tiny_options, **changes))
        assert_message(line, f"{WHERE}.{key}", kind)

    @pytest.mark.parametrize(
        "changes",
        [
            {"database": "x.patchdb", "database_use": "only", "top_k": 3, "database_index": "exact"},
            {"database": "x.patchdb", "stride": 2},
            {"stride": 4},
            {"features": {"layer": "conv1_2"}},
            {"features": {"layer": "relu1_1", "vgg_weights": "vgg.pth"}, "stride": 2},
            {"database": None, "features": None, "stride": None},
        ],
    )
    def test_accepted(self, tiny_options, changes):
        """No file is opened and no network built for that."""
        assert check_options(_with(tiny_options, **changes)) == []

    def test_editors_know_them(self):
        branches = json_schema()["$defs"]["loss"]["allOf"]
        (block,) = (one for one in branches if one["if"]["properties"]["type"]["const"] == "GramPatchLoss")
        known = block["then"]["properties"]
        assert known["database_use"]["enum"] == ["also", "only"]
        assert known["database_use"]["default"] == "also"
        assert known["select_by"]["enum"] == ["gram", "pixel"]
        assert known["top_k"]["minimum"] == 1
        assert "layer" in known["features"]["anyOf"][0]["properties"]
        assert all(one["description"] for one in known.values())


class TestTogether:
    @pytest.mark.parametrize(
        ("changes", "where", "kind"),
        [
            ({"database": "x", "select_by": "pixel"}, f"{WHERE}.select_by", "pixel, but a database"),
            ({"stride": 5}, f"{WHERE}.stride", "1 to patch_size, which is 4, got 5"),
            ({"patch_size": 6}, CROP, f"64 is not a multiple of {WHERE}.patch_size 6"),
            ({"patch_size": 65, "stride": 1}, CROP, f"64 is smaller than {WHERE}.patch_size 65"),
            ({"patch_size": 5, "stride": 2}, CROP, f"64 is not {WHERE}.patch_size 5 and a multiple of stride 2"),
            (
                {"patch_size": 3, "features": {"layer": "conv3_1"}},
                CROP,
                f"64 is not a multiple of {WHERE}.patch_size 12 (in pixels of the image",
            ),
        ],
    )
    def test_errors(self, tiny_options, changes, where, kind):
        (line,) = _problems(check_options, _with(tiny_options, **changes))
        assert_message(line, where, kind)

    @pytest.mark.parametrize(
        "changes", [{"patch_size": 6, "stride": 2}, {"patch_size": 16}, {"patch_size": 3, "stride": 1}]
    )
    def test_patches_that_cover_the_crop(self, tiny_options, changes):
        assert check_options(_with(tiny_options, **changes)) == []

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"top_k": 2}, "no `database`"),
            ({"database_use": "only"}, "no effect without `database`"),
            ({"database_index": "hnsw"}, "no effect without `database`"),
        ],
    )
    def test_warnings(self, tiny_options, changes, kind):
        (warning,) = check_options(_with(tiny_options, **changes))
        assert_message(warning, f"{WHERE}.{next(iter(changes))}", kind)
        assert check_options(_with(tiny_options, database="x.patchdb")) == []

    def test_a_texture_loss_elsewhere(self, tiny_options):
        tiny_options["train"]["extra_terms"] = {"coarse": {"type": "GramPatchLoss", "patch_size": 8, "stride": 9}}
        (line,) = _problems(check_options, tiny_options)
        assert_message(line, "train.extra_terms.coarse.stride", "1 to patch_size, which is 8, got 9")

    def test_no_crop_to_compare_with(self, tiny_options):
        del tiny_options["datasets"]["train"]["gt_size"]
        lines = _problems(check_options, _with(tiny_options, patch_size=6, database="x", select_by="pixel"))
        assert [line.partition(": ")[0] for line in lines] == ["datasets.train.gt_size", f"{WHERE}.select_by"]


class TestDatabase:
    def test_smoke(self, tiny_options, database):
        _with(tiny_options, database=str(database))
        assert check_options(tiny_options) == []
        check_files(tiny_options)

    def test_missing(self, tiny_options, workdir):
        (line,) = _problems(check_files, _with(tiny_options, database="no.patchdb"))
        assert_message(line, f"{WHERE}.database: no.patchdb", "no such patch database")

    def test_damaged(self, tiny_options, own_database):
        patches = own_database / "patches.npy"
        patches.write_bytes(patches.read_bytes()[:-1])
        (line,) = _problems(check_files, _with(tiny_options, database=str(own_database)))
        assert_message(line, f"{WHERE}.database: own.patchdb/patches.npy", "damaged")

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"center": False}, "false, but "),
            ({"normalize": False}, "false, but "),
            ({"patch_size": 8}, "8, but "),
            ({"features": {"layer": "conv1_2"}}, "{layer: conv1_2}, but "),
        ],
    )
    def test_of_another_kind(self, tiny_options, database, changes, kind):
        _with(tiny_options, database=str(database), **changes)
        assert check_options(tiny_options) == []
        (line,) = _problems(check_files, tiny_options)
        assert_message(line, f"{WHERE}.{next(iter(changes))}", kind)

    def test_of_other_channels(self, tiny_options, database):
        tiny_options["network_g"]["num_out_ch"] = 1
        (line,) = _problems(check_files, _with(tiny_options, database=str(database)))
        assert_message(line, f"{WHERE}.database", "1 channels")

    def test_the_check_is_the_losses_own(self, database):
        """What the file check refuses, building the loss refuses, too, and what it takes is built."""
        block = {"type": "GramPatchLoss", "database": str(database)}
        build_loss(WHERE, {**block, "center": True})
        with pytest.raises(OptionError, match=r"gram_patch_opt\.center"):
            build_loss(WHERE, {**block, "center": False})
        with pytest.raises(OptionError, match=r"^train\.extra_terms\.coarse\.center: "):
            build_loss("train.extra_terms.coarse", {**block, "center": False})

    def test_missing_feature_weights(self, tiny_options, workdir):
        _with(tiny_options, features={"layer": "conv1_2", "vgg_weights": "vgg.pth"})
        assert _problems(check_files, tiny_options) == [f"{WHERE}.features.vgg_weights: vgg.pth: no such file"]

    @pytest.mark.parametrize("command", ["check", "train"])
    def test_before_anything_starts(self, tiny_options, write_options, workdir, capsys, command):
        name = write_options(_with(tiny_options, database="no.patchdb"))
        assert main([command, "-opt", name]) == 2
        where = f"basicsr {command}: {WHERE}.database: no.patchdb"
        assert_message(capsys.readouterr().err, where, "no such patch database")
        assert not (workdir / "experiments").exists()
        assert main(["check", "-opt", name, "--no-files"]) == 0


class TestDiscriminator:
    """GramGAN-RealPhoto's takes any crop from 32 pixels on."""

    @pytest.fixture
    def options(self, tiny_options):
        tiny_options["network_d"] = {"type": "GramGANRealPhotoDiscriminator", "num_in_ch": 3, "num_feat": 4}
        tiny_options["train"]["disc_perceptual_opt"]["taps"] = [5, 11]
        return tiny_options

    @pytest.mark.parametrize("size", [32, 36, 100])
    def test_sizes(self, options, size):
        options["datasets"]["train"]["gt_size"] = size
        assert check_options(options) == []

    def test_errors(self, options):
        options["datasets"]["train"]["gt_size"] = 28
        (line,) = _problems(check_options, options)
        assert_message(line, CROP, "28, but GramGANRealPhotoDiscriminator takes 32 pixels")
        options["datasets"]["train"]["gt_size"] = 64
        options["train"]["disc_perceptual_opt"]["taps"] = ["conv5_1"]
        (line,) = _problems(check_options, options)
        assert_message(line, "train.disc_perceptual_opt.taps", "no convolution 'conv5_1', only 1 to 11")
        options["network_d"]["input_size"] = 64
        options["train"]["disc_perceptual_opt"]["taps"] = [5, 11]
        (line,) = _problems(check_options, options)
        assert_message(line, "network_d.input_size", "unknown option")
        del options["network_d"]["input_size"]
        options["network_d"]["num_feat"] = 0
        (line,) = _problems(check_options, options)
        assert_message(line, "network_d.num_feat", "at least 1, not 0")
