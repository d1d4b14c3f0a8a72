"""Checkpoints damaged in every way that a seed comes up with: each loads, dense and finite, or is refused in a line."""

import io
import pickletools
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from gramgan_plugin.checkpoints.state_dicts import copy_weights, find_state_dict, match_weights
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.errors import UserError

Archive = list[tuple[str, bytes]]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def _saved(legacy: bool) -> bytes:
    """Weights and a training state in one file, so that it has every kind of value."""
    net = _network()
    optimizer = torch.optim.Adam(net[0].parameters())
    net[0](torch.rand(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    content = {
        "params": net.state_dict(),
        "params_ema": OrderedDict((name, value.half()) for name, value in net.state_dict().items()),
        "optimizers": [optimizer.state_dict()],
        "random": {"torch": torch.get_rng_state()[:40], "python": [3, [1, 2**40], None]},
        "bytes": b"\xff\x00",
        "shape": torch.Size([1, 2]),
    }
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _members(data: bytes) -> Archive:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _zipped(members: Archive, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def _flipped(data: bytes, rng: random.Random, count: int, within: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(within or len(changed))] = rng.randrange(256)
    return bytes(changed)


def _opcodes_changed(pickled: bytes, rng: random.Random, count: int) -> bytes:
    """Opcodes replaced, arguments changed, stretches left out or doubled, where the opcodes really are."""
    places = [place for _, _, place in pickletools.genops(pickled)]
    changed = bytearray(pickled)
    for _ in range(count):
        start = rng.randrange(len(places) - 1)
        place, end = places[start], places[start + 1]
        how = rng.randrange(4)
        if how == 0:
            changed[place] = ord(rng.choice(pickletools.opcodes).code.encode("latin-1"))
        elif how == 1 and end > place + 1:
            changed[rng.randrange(place + 1, end)] = rng.randrange(256)
        elif how == 2:
            changed[place:end] = bytes(changed[place:end]) * 2
            break  # what follows has moved
        else:
            del changed[place:end]
            break
    return bytes(changed)


def mutate(zipped: bytes, legacy: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A damaged checkpoint, and how it was damaged."""
    how = rng.choice(["bytes", "cut", "legacy bytes", "legacy cut", "legacy pickle", "resized", "opcodes", "member"])
    if how.endswith("cut"):
        data = legacy if how.startswith("legacy") else zipped
        return how, data[: rng.randrange(len(data))]
    if how == "bytes":
        return how, _flipped(zipped, rng, rng.choice([1, 1, 3, 20]))
    if how == "legacy bytes":
        return how, _flipped(legacy, rng, rng.choice([1, 1, 3, 20]))
    if how == "legacy pickle":
        return how, _flipped(legacy, rng, rng.choice([1, 2]), within=len(legacy) // 2)
    members = _members(zipped)
    at = next(place for place, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    if how != "opcodes":
        at = rng.randrange(len(members))
    name, content = members[at]
    if how == "opcodes":
        content = _opcodes_changed(content, rng, rng.choice([1, 1, 2, 5]))
    elif how == "resized":
        content = (
            content[: rng.randrange(len(content) + 1)] if rng.random() < 0.5 else content + bytes(rng.randrange(99))
        )
    else:
        content = _flipped(content, rng, 1) if content else b"x"
    members[at] = (name, content)
    return how, _zipped(members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def load_or_refuse(path: Path) -> str | None:
    """The refusal, or None for a file that loads."""
    try:
        content = load_tensors(path)
        weights, key = find_state_dict(content, str(path), "params")
        net = _network()
        fit = match_weights(net, weights, str(path), key)
        refusal = fit.refusal(strict=False)
        if refusal is not None:
            return refusal
        copy_weights(net, fit)
    except UserError as error:
        return str(error)
    for name, value in fit.fitting.items():
        assert value.layout == torch.strided, name
        assert value.device.type == "cpu", name
        assert torch.isfinite(net.state_dict()[name]).all(), name
    return None


@pytest.fixture(scope="module")
def originals() -> tuple[bytes, bytes]:
    return _saved(legacy=False), _saved(legacy=True)


class TestMutations:
    def test_the_originals_load(self, originals, tmp_path):
        for data in (*originals, _zipped(_members(originals[0]), zipfile.ZIP_DEFLATED)):
            (tmp_path / "x.pth").write_bytes(data)
            assert load_or_refuse(tmp_path / "x.pth") is None

    @pytest.mark.parametrize("seed", range(8))
    def test_each_loads_or_is_refused_in_a_line(self, originals, tmp_path, seed):
        path = tmp_path / "x.pth"
        for number in range(75):
            how, data = mutate(*originals, random.Random(1000 * seed + number))
            path.write_bytes(data)
            try:
                refusal = load_or_refuse(path)
            except Exception as error:
                raise AssertionError(f"seed {seed}, number {number}, {how}") from error
            if refusal is not None:
                assert refusal.isprintable(), (seed, number)
                assert len(refusal) < 1000
                for advice in ("weights_only", "torch.load", "Re-running", "allowlist", "safe_globals"):
                    assert advice not in refusal
