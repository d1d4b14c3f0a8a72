"""What a loss's class may ask to have opened, and what it is told where it asks for something else."""

from typing import Any

import pytest
from torch import nn

from gramgan_plugin.losses import GramPatchLoss
from gramgan_plugin.models.resources import open_resources


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


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (["database"], "resources: expected a mapping"),
        ({"database": "books"}, "resources: database is 'books', which is not one of vgg19_weights"),
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
