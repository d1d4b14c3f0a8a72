"""JSON files of a run that were damaged, or written by someone else: they are skipped, and one line says why."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.checkpoints.resume import damage, newest_checkpoint
from gramgan_plugin.evaluation.over_time import _read_values
from gramgan_plugin.training.run_folder import recorded_results
from gramgan_plugin.training.wandb_log import _saved_id
from gramgan_plugin.utils.io import describe_file, lock_holder

DEEP = ("[" * 100_000, '{"files":' * 100_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def states(tmp_path) -> Path:
    """Two checkpoints, of iterations 1 and 2."""
    folder = tmp_path / "training_states"
    folder.mkdir()
    for iteration in (1, 2):
        state = folder / f"{iteration}.state"
        state.write_bytes(b"state")
        _list(state, {f"training_states/{iteration}.state": describe_file(state)})
    return folder


def _list(state: Path, files: Any) -> None:
    state.with_suffix(".json").write_text(json.dumps({"files": files}))


class TestManifests:
    def test_smoke(self, states):
        assert damage(states / "2.state") is None
        assert newest_checkpoint(states) == states / "2.state"

    @pytest.mark.parametrize("text", [*DEEP, "", "{", "[]", '{"files": [1]}', '{"files": {"a": 3}}', "1" * 5000])
    def test_one_that_is_none(self, states, text):
        (states / "2.json").write_text(text)
        assert damage(states / "2.state") == "2.json is not readable"
        lines: list[str] = []
        assert newest_checkpoint(states, lambda _, line: lines.append(line)) == states / "1.state"
        assert lines == [f"{states / '2.state'} is skipped: 2.json is not readable"]

    @pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\ud800", "\x1b[2J\n", "/" * 5000, "../" * 2000])
    def test_names_that_no_file_can_have(self, states, name):
        _list(states / "2.state", {name: {"size": 1, "sha256": "0"}})
        problem = damage(states / "2.state")
        assert problem is not None
        assert problem.isprintable()
        assert len(problem) < 200

    def test_a_large_one_is_not_read(self, states):
        entry = describe_file(states / "2.state")
        _list(states / "2.state", {"training_states/2.state": entry, "x" * 2**20: entry})
        assert damage(states / "2.state") == "2.json is not readable"

    @given(JSON)
    def test_any_json(self, tmp_path_factory, value):
        folder = tmp_path_factory.mktemp("states")
        (folder / "1.state").write_bytes(b"")
        for content in (value, {"files": value}, {"files": {"1.state": value}}):
            (folder / "1.json").write_text(json.dumps(content))
            problem = damage(folder / "1.state")
            assert problem is None or problem.isprintable()


class TestOthers:
    @pytest.mark.parametrize("line", [*DEEP, '{"iter": 1, "dataset": []}', '{"iter": 1, "dataset": {}}', "3"])
    def test_metrics(self, tmp_path, line):
        (tmp_path / "metrics.jsonl").write_text(line + '\n{"iter": 1, "dataset": "Set5", "metrics": {}}\n')
        assert (recorded_results(tmp_path, 1, ["Set5"]) is not None) is ("dataset" in line)
        assert recorded_results(tmp_path, 1, ["Set5", "Set14"]) is None

    @pytest.mark.parametrize("text", DEEP)
    def test_small_ones(self, tmp_path, text):
        for name in (".lock.json", "wandb.json", "values.json"):
            (tmp_path / name).write_text(text)
        assert lock_holder(tmp_path / ".lock.json") == "another process"
        assert _saved_id(tmp_path / "wandb.json") is None
        assert _read_values(tmp_path / "values.json") == {}
