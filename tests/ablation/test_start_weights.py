"""The weights that runs start from, as the report measures them."""

from pathlib import Path

from gramgan_plugin.ablation.ablation_file import read_ablation
from gramgan_plugin.ablation.start_weights import start_weights
from gramgan_plugin.checkpoints.weights_file import read_weights


def test_of_this_package(write_options, workdir):
    content = {"base": "train_gramgan_sample.yml", "variants": {"full": None}, "test": {"data": "sets"}}
    ablation = read_ablation(write_options(content))
    problems: list[str] = []
    found = start_weights(ablation, Path("new/folder"), problems)
    assert problems == []
    assert read_weights(found["start"]).state.keys() >= {"conv_first.weight", "body.2.rdb3.conv5.bias"}
    Path("taken").touch()
    assert start_weights(ablation, Path("taken"), problems) == {}
    (problem,) = problems
    assert problem.startswith("start is not measured: ")
