"""Upstream's own option files pass the check as they are."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import basicsr  # noqa: F401
import pytest
import yaml

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_options, resolve_options
from gramgan_plugin.errors import OptionError
from tests.messages import assert_message

upstream = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("upstream_options.py"))))


@pytest.mark.parametrize("options", upstream.ALL, ids=lambda one: one.__name__)
class TestUpstreamsFiles:
    def test_no_error(self, options):
        warnings = check_options(options())
        # Real-ESRGAN's files have the validation commented out; nothing else is worth a word.
        assert all("nothing is validated" in warning for warning in warnings), warnings

    def test_as_a_command(self, options, workdir, capsys):
        (workdir / "theirs.yml").write_text(yaml.safe_dump(options(), sort_keys=False))
        assert main(["check", "-opt", "theirs.yml", "--no-files"]) == 0
        assert capsys.readouterr().out == "theirs.yml: no mistakes found\n"

    def test_they_resolve(self, options, workdir):
        assert resolve_options(options() | {"num_gpu": 0}, is_train=True)["path"]["log"].startswith(str(workdir))

    def test_a_typo_in_them_is_found(self, options):
        wrong = options()
        wrong["train"]["pixel_optt"] = wrong["train"].pop("pixel_opt")
        with pytest.raises(OptionError, match=r"^train\.pixel_optt: .*did you mean 'pixel_opt'"):
            check_options(wrong)


class TestOlderNames:
    def test_flips(self, workdir):
        """BasicSR renamed use_flip; its PairedImageDataset 1.4.2 fails without use_hflip."""
        options = upstream.esrgan()
        options["datasets"]["train"]["use_flip"] = options["datasets"]["train"].pop("use_hflip")
        (warning,) = check_options(options)
        assert_message(warning, "datasets.train.use_flip", "an older name; read as 'use_hflip'")
        resolved = resolve_options(options | {"num_gpu": 0}, is_train=True)["datasets"]["train"]
        assert resolved["use_hflip"] is True
        assert "use_flip" not in resolved

    def test_beside_the_new_name(self):
        options = upstream.esrgan()
        options["datasets"]["train"]["use_flip"] = False
        (warning,) = check_options(options)
        assert_message(warning, "datasets.train.use_flip", "'use_hflip', which is given, too")

    def test_paths(self, workdir):
        options = upstream.rrdbnet_psnr()
        options["path"] = {"pretrain_model_g": "net.pth", "strict_load": False, "resume_state": None}
        assert len(check_options(options)) == 2
        path = resolve_options(options | {"num_gpu": 0}, is_train=True)["path"]
        assert (path["pretrain_network_g"], path["strict_load_g"]) == ("net.pth", False)

    def test_ours_has_no_older_name(self, tiny_options):
        tiny_options["datasets"]["train"]["use_flip"] = True
        with pytest.raises(OptionError, match=r"^datasets\.train\.use_flip: .*did you mean 'use_hflip'"):
            check_options(tiny_options)


class TestRealEsrgan:
    @pytest.mark.parametrize("key", ["resize_prob", "gt_usm", "jpeg_range2", "gt_size"])
    def test_degradation_has_to_be_complete(self, key):
        options = upstream.real_esrnet()
        del options[key]
        with pytest.raises(OptionError, match=rf"^{key}: missing"):
            check_options(options)

    def test_queue_and_batch(self):
        options = upstream.real_esrgan()
        options["datasets"]["train"]["batch_size_per_gpu"] = 7
        with pytest.raises(OptionError, match=r"^queue_size: 180 .* 7"):
            check_options(options)

    def test_the_crop_that_counts(self):
        options = upstream.real_esrgan()
        options["datasets"]["train"]["gt_size"] = 400
        assert_message(check_options(options), "datasets.train.gt_size", "not used here")
