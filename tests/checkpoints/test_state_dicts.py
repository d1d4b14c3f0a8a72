import pytest
import torch
from torch import nn

from gramgan_plugin.checkpoints.state_dicts import find_state_dict, fit_weights

STATE = {"0.weight": torch.ones(2, 2), "0.bias": torch.zeros(2)}


class TestFind:
    @pytest.mark.parametrize(
        ("loaded", "asked", "key"),
        [
            (STATE, "params", None),
            ({"params": STATE}, "params_ema", "params"),
            ({"params": {}, "params_ema": STATE}, "params_ema", "params_ema"),
            ({"params_ema": STATE}, "params", "params_ema"),
            ({"state_dict": STATE, "epoch": 4}, None, "state_dict"),
            ({"mine": STATE}, "mine", "mine"),
            ({f"module.{name}": value for name, value in STATE.items()}, "params", None),
        ],
    )
    def test_feature(self, loaded, asked, key):
        state, found = find_state_dict(loaded, asked)
        assert found == key
        assert state.keys() == STATE.keys()

    @pytest.mark.parametrize("loaded", [None, 3, [1], {}, {"epoch": 3}])
    def test_exception(self, loaded):
        with pytest.raises(ValueError, match="holds"):
            find_state_dict(loaded, "params")


class TestFit:
    def test_all_fits(self):
        net = nn.Sequential(nn.Linear(2, 2))
        fit = fit_weights(net, STATE, "file.pth", "params")
        assert fit.complete
        assert fit.summary() == "Sequential: 2 of 2 tensors loaded from file.pth [params]"
        assert torch.equal(net[0].weight, STATE["0.weight"])

    def test_misfits_are_named_and_counted(self):
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
        weights = STATE | {"1.weight": torch.zeros(4, 2)} | {f"extra.{n}": torch.zeros(1) for n in range(6)}
        fit = fit_weights(net, weights, "file.pth", None)
        assert fit.summary() == (
            "Sequential: 2 of 4 tensors loaded from file.pth; 1 not in the file: 1.bias; "
            "6 only in the file: extra.0, extra.1, extra.2, extra.3 and 2 more; "
            "1 of another shape: 1.weight (4, 2) for (3, 2)"
        )
        assert not fit.complete
        assert torch.equal(net[0].weight, STATE["0.weight"]), "what fits is taken"
