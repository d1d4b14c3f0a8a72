"""Two processes that train from one store of shards."""

import shutil
from pathlib import Path

import torch

from gramgan_plugin.prepare.shard_writer import write_shards
from tests.training.two_processes import basicsr, together

TRAIN = ("train", "-opt", "options.yml", "--launcher", "pytorch")


def test_a_run_resumes_bit_for_bit_within_an_epoch(tiny_options, sample_pair: Path, write_options, workdir) -> None:
    write_shards(sample_pair / "GT.lmdb", sample_pair / "LQ_x4.lmdb", workdir / "shards", 40_000, progress=False)
    tiny_options["datasets"]["train"] = {
        "name": "train",
        "type": "StreamedSRDataset",
        "dataroot_shards": "shards",
        "gt_size": 64,
        "batch_size_per_gpu": 1,
        "num_worker_per_gpu": 1,
    }
    del tiny_options["datasets"]["val"], tiny_options["val"], tiny_options["num_gpu"]
    tiny_options["device"] = "cpu"
    tiny_options["train"]["total_iter"] = 6  # an epoch has 4 iterations
    tiny_options["logger"]["save_checkpoint_freq"] = 3
    write_options(tiny_options)
    assert [end.code for end in together(2, basicsr, *TRAIN)] == [0, 0]
    run = Path("experiments/tiny")
    straight = torch.load(run / "models/net_g_6.pth", weights_only=True)
    log = (run / "metrics.jsonl").read_text().splitlines()[-1]
    for name in ("training_states/6.json", "training_states/6.state", "models/net_g_6.pth"):
        (run / name).unlink()
    shutil.copytree("shards", "elsewhere")
    shutil.rmtree("shards")
    changed = ("--force_yml", "datasets:train:dataroot_shards=elsewhere")  # a copy is the same data
    assert [end.code for end in together(2, basicsr, *TRAIN, "--auto_resume", *changed)] == [0, 0]
    assert "esum" in (run / "train.log").read_text()
    again = torch.load(run / "models/net_g_6.pth", weights_only=True)
    for key, weights in straight.items():
        assert all(torch.equal(weights[name], again[key][name]) for name in weights), key
    assert '"iter": 6' in log
