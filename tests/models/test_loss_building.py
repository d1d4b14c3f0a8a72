from pathlib import Path

import basicsr  # noqa: F401
import numpy as np
import pytest

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.loss_building import build_loss
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.writing import write_store


@pytest.mark.parametrize("key", ["train.gram_patch_opt", "train.extra_terms.coarse"])
def test_a_database_that_does_not_fit_is_refused_under_the_blocks_own_name(tmp_path: Path, key: str) -> None:
    write_store(tmp_path / "a.patchdb", [np.zeros((10, 4, 4, 3), np.uint8)], 10, Definition(4))
    block = {"type": "GramPatchLoss", "database": str(tmp_path / "a.patchdb")}
    assert build_loss(key, block).database.kind == "tree"
    with pytest.raises(OptionError, match=rf"^{key}\.center: true"):
        build_loss(key, block | {"center": True})
    with pytest.raises(OptionError, match=rf"^{key}: GramPatchLoss: top_k: 11, but "):
        build_loss(key, block | {"top_k": 11})


def test_the_options_stay_as_they_are() -> None:
    block = {"type": "GramPatchLoss", "center": True}
    build_loss("train.gram_patch_opt", block)
    assert block == {"type": "GramPatchLoss", "center": True}
