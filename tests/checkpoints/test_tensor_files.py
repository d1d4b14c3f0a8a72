import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from gramgan_plugin.checkpoints.tensor_files import load_tensors, save_tensors
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import describe_file, save_json


class _Touch:
    """Pickles into a call that leaves a file behind."""

    def __reduce__(self):
        return os.mknod, ("pwned",)


class TestTensors:
    def test_round_trip(self, tmp_path):
        data = {"a": torch.arange(4.0), "b": [1, 2.5, "c", None]}
        save_tensors(data, tmp_path / "deep" / "x.pth")
        back = load_tensors(tmp_path / "deep" / "x.pth")
        assert torch.equal(back["a"], data["a"])
        assert back["b"] == data["b"]
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.pth"]

    def test_of_torch_save_under_a_name_of_safetensors(self, workdir):
        torch.save({"params": {"a": torch.arange(3.0)}}, "x.pth")
        Path("x.pth").rename("x.safetensors")
        assert torch.equal(load_tensors("x.safetensors")["params"]["a"], torch.arange(3.0))

    def test_no_code_is_run(self, workdir):
        torch.save({"params": _Touch()}, "hostile.pth")
        with pytest.raises(UserError, match=r"^hostile\.pth: .*plain tensors[^\n]*$"):
            load_tensors("hostile.pth")
        assert not (workdir / "pwned").exists()

    def test_an_interrupted_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        save_tensors({"a": 1}, tmp_path / "x.pth")

        def interrupted(data, stream):
            stream.write(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_tensors({"a": 2}, tmp_path / "x.pth")
        assert load_tensors(tmp_path / "x.pth") == {"a": 1}
        assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_really_full_disk(self, tmp_path):
        (tmp_path / f".x.pth.tmp-{os.getpid()}").symlink_to("/dev/full")
        with pytest.raises(UserError, match=r"x\.pth: no space left on the disk"):
            save_tensors({"a": torch.zeros(1000)}, tmp_path / "x.pth")
        assert list(tmp_path.iterdir()) == []


class TestJson:
    def test_round_trip(self, tmp_path):
        save_json({"b": [1, None], "a": "ü"}, tmp_path / "x.json")
        assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"b": [1, None], "a": "ü"}

    def test_describe(self, tmp_path):
        (tmp_path / "x").write_bytes(b"abc" * 1000)
        expected = {"size": 3000, "sha256": hashlib.sha256(b"abc" * 1000).hexdigest()}
        assert describe_file(tmp_path / "x") == expected
