import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import lmdb
import pytest

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_all, check_files
from gramgan_plugin.errors import OptionError
from tests.config.problems import problems
from tests.messages import assert_message


@pytest.fixture
def own_options(tiny_options, sample_pair, workdir) -> dict[str, Any]:
    """The tiny options over a copy of the data that a test may damage."""
    shutil.copytree(sample_pair, workdir / "set")
    options = deepcopy(tiny_options)
    options["datasets"]["train"] |= {"dataroot_gt": "set/GT.lmdb", "dataroot_lq": "set/LQ_x4.lmdb"}
    options["datasets"]["val"] |= {"dataroot_gt": "set/test/GT", "dataroot_lq": "set/test/LQ_x4"}
    return options


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def _without_manifests(folder: Path) -> None:
    """As upstream writes its LMDBs; what is wrong with them has to be found otherwise."""
    for manifest in folder.rglob("manifest.json"):
        manifest.unlink()


class TestDataSets:
    def test_smoke(self, own_options):
        check_files(own_options)

    def test_all_that_is_missing(self, own_options):
        own_options["datasets"]["train"] |= {"dataroot_gt": "no/GT.lmdb", "dataroot_lq": ["no/LQ.lmdb"]}
        own_options["datasets"]["val"]["dataroot_gt"] = "no/GT"
        found = problems(own_options)
        assert len(found) == 3
        assert_message(found, "datasets.train.dataroot_gt: no/GT.lmdb", "no such folder; basicsr prepare")
        assert_message(found, "datasets.train.dataroot_lq: no/LQ.lmdb", "no such folder; basicsr prepare")
        assert_message(found, "datasets.val.dataroot_gt: no/GT", "no such folder")

    def test_a_file_where_a_folder_belongs(self, own_options, workdir):
        (workdir / "file").write_text("")
        own_options["datasets"]["val"]["dataroot_gt"] = "file"
        assert problems(own_options) == ["datasets.val.dataroot_gt: file: not a folder"]

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    def test_an_lmdb_that_disagrees_with_its_list(self, own_options, workdir, kind):
        own_options["datasets"]["train"]["type"] = kind
        listed = workdir / "set/GT.lmdb/meta_info.txt"
        _without_manifests(workdir / "set")
        lines = _lines(listed)
        count = len(lines)
        listed.write_text("".join(lines[1:]))
        (problem,) = problems(own_options)
        where = "datasets.train.dataroot_gt: set/GT.lmdb"
        assert_message(problem, where, f"meta_info.txt lists {count - 1} keys, data.mdb has {count}")
        # As many as there are, and one of another name.
        listed.write_text("".join(["999999_s001.png (96,96,3) 3\n", *lines[1:]]))
        (problem,) = problems(own_options)
        assert_message(problem, where, "lists 999999_s001, data.mdb does not hold it")

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    @pytest.mark.parametrize("line", ["", "000002_s001.png (0,0,3) 3", f"000002_s001.png ({'9' * 5000},96,3) 3"])
    def test_lines_that_are_none(self, own_options, workdir, kind, line):
        own_options["datasets"]["train"]["type"] = kind
        _without_manifests(workdir / "set")
        listed = workdir / "set/LQ_x4.lmdb/meta_info.txt"
        listed.write_text("".join([*_lines(listed)[:1], f"{line}\n", *_lines(listed)[2:]]))
        (problem,) = problems(own_options)
        assert_message(problem, "datasets.train.dataroot_lq: set/LQ_x4.lmdb/meta_info.txt", "line 2")

    def test_images_smaller_than_the_crop(self, own_options):
        own_options["datasets"]["train"]["gt_size"] = 128
        (problem,) = problems(own_options)
        assert_message(problem, "datasets.train.dataroot_gt: set/GT.lmdb: 000001_s001", "96x96 is smaller")

    def test_no_lmdb_at_all(self, own_options, workdir):
        (workdir / "set/GT.lmdb/data.mdb").unlink()
        (workdir / "set/LQ_x4.lmdb/meta_info.txt").unlink()
        gt, lq = problems(own_options)
        assert_message(gt, "datasets.train.dataroot_gt: set/GT.lmdb", "no such LMDB")
        assert_message(lq, "datasets.train.dataroot_lq: set/LQ_x4.lmdb", "no meta_info.txt")

    def test_partners(self, own_options, workdir):
        photo = next((workdir / "set/test/GT").iterdir())
        cv2.imwrite(str(photo.with_name("another.png")), cv2.imread(str(photo)))
        (problem,) = problems(own_options)
        assert_message(problem, "datasets.val.dataroot_lq", "differ: another is in set/test/GT")

    @pytest.mark.parametrize("key", ["val_1", "val_2"])
    def test_the_key_is_the_files(self, own_options, key):
        own_options["datasets"][key] = {**own_options["datasets"].pop("val"), "dataroot_lq": "set/GT.lmdb"}
        (problem,) = problems(own_options)
        assert problem.startswith(f"datasets.{key}.dataroot_lq: ")

    def test_keys_of_upstreams_pairs(self, own_options, workdir):
        own_options["datasets"]["train"]["type"] = "PairedImageDataset"
        folder = workdir / "set/LQ_x4.lmdb"
        _without_manifests(workdir / "set")
        environment = lmdb.open(str(folder), map_size=2**24, lock=False)
        with environment, environment.begin(write=True) as transaction:
            transaction.put(b"888888_s001", b"x")
        with (folder / "meta_info.txt").open("a") as listed:
            listed.write("888888_s001.png (24,24,3) 3\n")
        (problem,) = problems(own_options)
        assert_message(problem, "datasets.train.dataroot_lq", "not those of GT: 888888_s001")

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    def test_an_lmdb_changed_since_it_was_prepared(self, own_options, workdir, kind, write_options, capsys):
        own_options["datasets"]["train"]["type"] = kind
        assert main(["prepare", "verify", "set"]) == 0
        check_files(own_options)
        environment = lmdb.open("set/LQ_x4.lmdb", map_size=2**24, lock=False)
        with environment, environment.begin(write=True) as transaction:
            transaction.put(b"000001_s001", b"another image")
        where, kind = "datasets.train.dataroot_lq: set/LQ_x4.lmdb", "changed since it was prepared or verified"
        (problem,) = problems(own_options)
        assert_message(problem, where, kind, "`basicsr prepare verify set/LQ_x4.lmdb`")
        for command in ("check", "train"):
            capsys.readouterr()
            assert main([command, "-opt", write_options(own_options)]) == 2
            assert_message(capsys.readouterr().err, f"basicsr {command}: {where}", kind)

    def test_meta_info_file(self, own_options):
        own_options["datasets"]["val"] |= {"type": "PairedImageDataset", "meta_info_file": "no.txt"}
        assert problems(own_options) == ["datasets.val.meta_info_file: no.txt: no such file"]

    def test_an_empty_folder(self, own_options, workdir):
        (workdir / "empty").mkdir()
        own_options["datasets"]["val"]["dataroot_gt"] = "empty"
        assert problems(own_options) == ["datasets.val.dataroot_gt: empty: a folder without images"]


class TestWeights:
    def test_missing(self, own_options):
        own_options["path"] |= {"pretrain_network_g": "g.pth", "pretrain_network_d": "d.pth"}
        own_options["train"]["perceptual_opt"] = {"type": "VGGPerceptualLoss", "vgg_weights": "vgg.pth"}
        found = problems(own_options)
        assert len(found) == 3
        assert_message(found, "path.pretrain_network_g: g.pth", "no such checkpoint")
        assert_message(found, "path.pretrain_network_d: d.pth", "no such checkpoint")
        assert_message(found, "train.perceptual_opt.vgg_weights: vgg.pth", "no such file")

    def test_a_run_that_goes_on_needs_no_first_weights(self, own_options, workdir):
        own_options["path"]["pretrain_network_g"] = "g.pth"
        assert problems(own_options, resumed=True) == []
        own_options["path"]["resume_state"] = "3.state"
        assert problems(own_options) == ["path.resume_state: 3.state: no such file"]
        own_options["path"]["ignore_resume_networks"] = ["network_g"]
        assert len(problems(own_options)) == 2


class TestCommands:
    def test_check(self, own_options, write_options, capsys):
        own_options["datasets"]["train"]["dataroot_gt"] = "no/GT.lmdb"
        name = write_options(own_options)
        assert main(["check", "-opt", name]) == 2
        where = "basicsr check: datasets.train.dataroot_gt: no/GT.lmdb"
        assert_message(capsys.readouterr().err, where, "no such folder")
        assert main(["check", "-opt", name, "--no-files"]) == 0

    @pytest.mark.parametrize("command", ["train", "test"])
    def test_before_anything_is_built(self, own_options, write_options, capsys, command, workdir):
        own_options["path"]["pretrain_network_g"] = "g.pth"
        own_options["val"]["pbar"] = True
        assert main([command, "-opt", write_options(own_options)]) == 2
        printed = capsys.readouterr().err
        assert f"basicsr {command}: warning: val.pbar: " in printed
        assert_message(printed, f"basicsr {command}: path.pretrain_network_g: g.pth", "no such checkpoint")
        assert not (workdir / "experiments").exists()
        assert not (workdir / "results").exists()


class TestAllAtOnce:
    def test_mistakes_and_missing_files_together(self, own_options):
        own_options["train"]["optim_g"]["lr"] = "fast"
        own_options["datasets"]["val"]["io_backendd"] = {}
        own_options["datasets"]["train"]["dataroot_gt"] = "no/GT.lmdb"
        own_options["path"]["pretrain_network_g"] = "no.pth"
        with pytest.raises(OptionError) as caught:
            check_all(own_options, lambda line: None)
        assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
            "datasets.val.io_backendd",
            "train.optim_g.lr",
            "datasets.train.dataroot_gt",
            "path.pretrain_network_g",
        ]
