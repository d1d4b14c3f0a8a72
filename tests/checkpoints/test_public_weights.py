"""The table of public weights against what their file names and torchvision say."""

import re

import pytest
from torchvision import models

from gramgan_plugin.checkpoints.public_weights import WEIGHTS, PublicWeights, public_weights
from gramgan_plugin.errors import UserError


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=list(WEIGHTS))
class TestTable:
    def test_the_name_of_the_file_has_the_first_digits(self, weights: PublicWeights) -> None:
        """torch.hub's convention, which BasicSR's official files follow, too."""
        named = re.search(r"-([0-9a-f]{8})\.pth$", weights.file)
        assert (named is None) == (weights.name.lower().startswith("realesr") or weights.shipped)
        if named is not None:
            assert weights.sha256.startswith(named[1])

    def test_facts(self, weights: PublicWeights) -> None:
        assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", weights.sha256)
        assert weights.whole_sha256 == (len(weights.sha256) == 64)
        if weights.shipped:
            assert weights.url == ""
            assert weights.file == f"{weights.name}.safetensors"
        else:
            assert weights.url.startswith("https://")
            assert weights.url.endswith(f"/{weights.file}") or weights.url.startswith("https://drive.google.com/uc?")
            assert re.fullmatch(r"[\w.-]+\.pth", weights.file)
        assert re.fullmatch(r"[\w.-]+", weights.name)
        assert weights.licence in ("Apache-2.0", "BSD-3-Clause", "CC-BY-SA-4.0")
        assert (weights.licence == "CC-BY-SA-4.0") == weights.shipped
        assert weights.size == weights.max_bytes or (weights.size is None and weights.max_bytes == 10**8)


def test_no_two_share_a_file() -> None:
    assert len({weights.file for weights in WEIGHTS.values()}) == len(WEIGHTS) == 13


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("vgg19", models.VGG19_Weights), ("vgg16", models.VGG16_Weights), ("alexnet", models.AlexNet_Weights)],
)
def test_torchvisions_own(name: str, theirs: type[models.WeightsEnum]) -> None:
    weights = theirs.IMAGENET1K_V1  # type: ignore[attr-defined]
    assert WEIGHTS[name].url == weights.url
    # Of the parameters in float32, with a few kilobytes of names; torchvision states MiB.
    assert WEIGHTS[name].size == pytest.approx(weights.meta["num_params"] * 4, abs=20_000)
    assert WEIGHTS[name].size / 2**20 == pytest.approx(weights.meta["_file_size"], abs=0.01)


def test_unknown() -> None:
    assert public_weights("vgg19") is WEIGHTS["vgg19"]
    with pytest.raises(UserError, match=r"^VGG_19\\x1b: .*did you mean 'vgg19'"):
        public_weights("VGG_19\x1b")
    with pytest.raises(UserError, match=r"^EDSR: no public weights of this name; .*`basicsr weights list`"):
        public_weights("EDSR")
