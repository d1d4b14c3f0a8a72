"""What a loss's class may ask to have opened, and what it is told where it asks for something else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from gramgan_plugin.building.resources import open_resources
from gramgan_plugin.errors import UserError
from gramgan_plugin.losses import GramPatchLoss
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.writing import write_store


class Database:
    def search(self) -> None: ...


def loss(resources: Any) -> type[nn.Module]:
    class Loss(nn.Module):
        def __init__(self, loss_weight: float = 1.0, database: Any = None, features: Any = None) -> None:
            super().__init__()

    Loss.resources = resources
    return Loss


def test_options_without_files_stay_as_they_are():
    assert open_resources(nn.L1Loss, {"reduction": "sum"}) == {"reduction": "sum"}
    assert open_resources(loss({"database": "patch_database"}), {"loss_weight": 2.0}) == {
        "loss_weight": 2.0,
        "database": None,
    }


def test_what_is_open_stays_so():
    database = Database()
    assert open_resources(GramPatchLoss, {"database": database})["database"] is database


def test_what_the_class_names_by_default_is_opened(tmp_path: Path):
    class Loss(nn.Module):
        resources = {"textures": "patch_database"}  # noqa: RUF012

        def __init__(self, textures: Any = tmp_path / "none.patchdb") -> None:
            super().__init__()

    with pytest.raises(UserError, match=r"none\.patchdb: no such patch database"):
        open_resources(Loss, {})
    assert open_resources(Loss, {"textures": None}) == {"textures": None}


@pytest.mark.parametrize(("options", "kind"), [({}, "tree"), ({"database_index": "exact"}, "exact")])
def test_a_database_is_searched_as_asked(tmp_path: Path, options: dict[str, Any], kind: str):
    write_store(tmp_path / "a.patchdb", [np.zeros((10, 4, 4, 3), np.uint8)], 10, Definition(4))
    opened = open_resources(GramPatchLoss, {"database": str(tmp_path / "a.patchdb"), **options})
    assert opened["database"].kind == kind


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (["database"], "resources: expected a mapping"),
        ({"database": "books"}, "resources: database is 'books'"),
        ({"weights": "vgg19_weights"}, "resources: weights is not an option of the class"),
    ],
)
def test_exception(resources, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        open_resources(loss(resources), {})


@pytest.mark.parametrize("value", [4, 1.5, ["a"], True])
def test_a_database_is_a_path(value):
    with pytest.raises(ValueError, match=r"^database: expected a path, got "):
        open_resources(GramPatchLoss, {"database": value})
