"""The real small run, as docs/results.md has it: `pytest -m slow`, about 5 minutes on 2 cores."""

import json

import pytest
import torch

from gramgan_plugin.cli.main import main


@pytest.mark.slow
def test_gramgan_trains_from_the_l1_stage_of_this_package(workdir):
    torch.set_num_threads(2)
    assert main(["prepare", "sample"]) == 0
    assert main(["train", "-opt", "train_gramgan_sample"]) == 0
    l1 = ["name=l1", "path:pretrain_network_g=4x-RRDB-Lite"]
    assert main(["test", "-opt", "test_sample", "--force_yml", *l1]) == 0
    assert main(["test", "-opt", "test_sample"]) == 0
    means = {
        (row["model"], row["metric"]): row["mean"]
        for name in ("l1", "GramGAN_sample")
        for row in json.loads((workdir / f"results/{name}/results.json").read_text())["rows"]
    }
    assert means["l1", "psnr"] > means["bicubic", "psnr"] + 1.5
    assert means["l1", "psnr"] - 1.2 < means["GramGAN_sample", "psnr"]
    assert means["GramGAN_sample", "niqe"] < means["l1", "niqe"]
