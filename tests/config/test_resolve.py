from pathlib import Path

import pytest

from gramgan_plugin.config import resolve_options
from gramgan_plugin.errors import OptionError


class TestResolve:
    def test_training(self, tiny_options, workdir):
        opt = resolve_options(tiny_options, is_train=True)
        run = workdir / "experiments" / "tiny"
        assert opt["path"]["experiments_root"] == str(run)
        assert opt["path"]["models"] == str(run / "models")
        assert (opt["is_train"], opt["dist"], opt["auto_resume"], opt["num_gpu"]) == (True, False, False, 0)
        assert [d["phase"] for d in opt["datasets"].values()] == ["train", "val"]
        assert all(d["scale"] == 4 for d in opt["datasets"].values())
        assert "phase" not in tiny_options["datasets"]["train"], "the caller's dict is not to be changed"

    def test_testing(self, tiny_options, workdir):
        opt = resolve_options(tiny_options, is_train=False)
        assert opt["path"]["results_root"] == str(workdir / "results" / "tiny")

    def test_debug(self, tiny_options, workdir):
        opt = resolve_options(tiny_options, is_train=True, debug=True)
        assert opt["name"] == "debug_tiny"
        assert (opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"], opt["val"]["val_freq"]) == (1, 8, 8)

    def test_whole_numbers_become_integers(self, tiny_options, workdir):
        tiny_options |= {"manual_seed": 7.0, "scale": 4.0}
        tiny_options["datasets"]["train"]["gt_size"] = 64.0
        tiny_options["val"]["val_freq"] = 5e3
        opt = resolve_options(tiny_options, is_train=True)
        numbers = opt["manual_seed"], opt["datasets"]["val"]["scale"], opt["datasets"]["train"]["gt_size"]
        assert [(n, type(n)) for n in (*numbers, opt["val"]["val_freq"])] == [(n, int) for n in (7, 4, 64, 5000)]
        assert opt["train"]["optim_g"]["lr"] == 1e-4

    def test_an_empty_section(self, tiny_options, workdir):
        assert resolve_options(tiny_options | {"logger": None, "path": None}, is_train=True)["logger"] == {}

    def test_home_is_expanded(self, tiny_options, workdir):
        tiny_options["path"]["pretrain_network_g"] = "~/net.pth"
        tiny_options["datasets"]["train"]["dataroot_gt"] = ["~/a.lmdb", "b.lmdb"]
        opt = resolve_options(tiny_options, is_train=True)
        assert opt["path"]["pretrain_network_g"] == str(Path.home() / "net.pth")
        assert opt["datasets"]["train"]["dataroot_gt"] == [str(Path.home() / "a.lmdb"), "b.lmdb"]

    def test_a_seed_is_drawn_and_recorded(self, tiny_options, workdir):
        del tiny_options["manual_seed"]
        assert resolve_options(tiny_options, is_train=True)["manual_seed"] >= 1

    def test_a_data_set_may_have_a_plus_in_its_name(self, tiny_options, workdir):
        tiny_options["datasets"]["train"]["name"] = "DF2K+OST"
        resolve_options(tiny_options, is_train=True)
        with pytest.raises(OptionError, match=r"^name: "):
            resolve_options({**tiny_options, "name": "a+b"}, is_train=True)

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "a b", None, 3, "x\n"])
    def test_names_that_are_no_folder(self, tiny_options, name):
        with pytest.raises(OptionError, match=r"^name: "):
            resolve_options({**tiny_options, "name": name}, is_train=True)
        tiny_options["datasets"]["val"]["name"] = name
        with pytest.raises(OptionError, match=r"^datasets\.val\.name: "):
            resolve_options(tiny_options, is_train=True)

    @pytest.mark.parametrize("num_gpu", [999, -1, "many", 1.5, True])
    def test_gpus_that_are_not_there(self, tiny_options, num_gpu):
        with pytest.raises(OptionError, match=r"^num_gpu: "):
            resolve_options({**tiny_options, "num_gpu": num_gpu}, is_train=True)
