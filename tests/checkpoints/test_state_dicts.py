import pytest
import torch
from torch import nn

from gramgan_plugin.checkpoints.state_dicts import copy_weights, find_state_dict, match_weights
from gramgan_plugin.errors import UserError
from tests.messages import assert_message

STATE = {"0.weight": torch.ones(2, 2), "0.bias": torch.zeros(2)}
BOTH = {"params": STATE, "params_ema": STATE, "epoch": 4, "optimizer": {"state": {}}}


class TestFind:
    @pytest.mark.parametrize(
        ("loaded", "asked", "key"),
        [
            (STATE, "params", None),
            ({"params": STATE}, "params_ema", "params"),
            ({"params": {}, "params_ema": STATE}, "params_ema", "params_ema"),
            ({"params_ema": STATE}, "params", "params_ema"),
            ({"params-ema": STATE, "params": STATE}, "params_ema", "params"),
            ({"state_dict": STATE, "epoch": 4}, None, "state_dict"),
            ({"mine": STATE}, "mine", "mine"),
            ({"mine": STATE, "epoch": 4}, "params", "mine"),
            (BOTH, None, "params"),
            ({f"module.{name}": value for name, value in STATE.items()}, "params", None),
            ({f"_orig_mod.{name}": value for name, value in STATE.items()}, "params", None),
            ({f"module._orig_mod.{name}": value for name, value in STATE.items()}, "params", None),
            ({f"_orig_mod.module.{name}": value for name, value in STATE.items()}, "params", None),
        ],
    )
    def test_feature(self, loaded, asked, key):
        state, found = find_state_dict(loaded, "f.pth", asked)
        assert found == key
        assert state.keys() == STATE.keys()

    def test_another_key_comes_before_the_usual_ones(self):
        loaded = {"params": STATE, "ema": {"x": torch.ones(1)}}
        assert find_state_dict(loaded, "f.pth", "params_ema", also="ema")[1] == "ema"

    @pytest.mark.parametrize("loaded", [None, 3, [1], {}, {"epoch": 3}, {"params": {}}, {"params": [torch.ones(1)]}])
    def test_exception(self, loaded):
        with pytest.raises(UserError, match=r"^f\.pth: holds .*weights"):
            find_state_dict(loaded, "f.pth", "params")

    @pytest.mark.parametrize(
        ("loaded", "key", "has"),
        [
            (BOTH, "ema", "it has params, params_ema"),
            (BOTH, "params-ema", "it has params, params_ema"),
            (BOTH, "epoch", "it has params, params_ema"),
            (BOTH, "optimizer", "it has params, params_ema"),
            (STATE, "params", "its weights are under no key"),
            ({"a\nb\x1b[2J": STATE}, "params", "it has a\\nb\\x1b[2J"),
            ({f"key{n}": STATE for n in range(20)}, "params", "key6, key7 and 12 more"),
        ],
    )
    def test_a_required_key(self, loaded, key, has):
        with pytest.raises(UserError) as caught:
            find_state_dict(loaded, "f.pth", key, required="path.param_key_g")
        assert_message(caught.value, "path.param_key_g", f"f.pth has no weights under {key!r}", has)

    def test_several_unknown_keys(self):
        with pytest.raises(UserError, match=r"^f\.pth: .* net_g, net_d"):
            find_state_dict({"net_g": STATE, "net_d": STATE}, "f.pth", "params")

    def test_a_name_twice(self):
        with pytest.raises(UserError, match=r"f\.pth: 0\.bias is there twice"):
            find_state_dict(STATE | {"module.0.bias": torch.ones(2)}, "f.pth", "params")


class TestMatch:
    def test_all_fits(self):
        net = nn.Sequential(nn.Linear(2, 2))
        fit = match_weights(net, STATE, "file.pth", "params")
        assert fit.complete
        assert fit.share == 1
        assert fit.refusal(strict=True) is None
        assert_message(fit.summary(), "Sequential", "2 of 2 tensors", "file.pth [params]")
        copy_weights(net, fit)
        assert torch.equal(net[0].weight, STATE["0.weight"])

    def test_misfits_are_named_and_counted(self):
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
        weights = STATE | {"1.weight": torch.zeros(4, 2)} | {f"extra.{n}": torch.zeros(1) for n in range(6)}
        fit = match_weights(net, weights, "file.pth", None)
        absent, more = "1 not in the file: 1.bias", "6 only in the file: extra.0, extra.1, extra.2, extra.3 and 2 more"
        shape = "1 of another shape: 1.weight (4, 2) for (3, 2)"
        assert_message(fit.summary(), "Sequential", "2 of 4 tensors", absent, more, shape)
        assert not fit.complete
        copy_weights(net, fit)
        assert torch.equal(net[0].weight, STATE["0.weight"]), "what fits is taken"

    def test_names_are_shown_in_one_line(self):
        weights = STATE | {"a\nb\x1b[31m": torch.zeros(1), "c" * 5000: torch.zeros(1)}
        fit = match_weights(nn.Sequential(nn.Linear(2, 2)), weights, "fi\nle.pth", "k\ney")
        for text in (fit.summary(), fit.refusal(strict=True)):
            assert text.isprintable()
            assert "a\\nb\\x1b[31m" in text
            assert len(text) < 600

    @pytest.mark.parametrize(
        ("names", "share"),
        [
            (["0.weight", "0.bias"], 4 / 6 * 0 + 2 / 6),
            (["0.bias", "1.bias", "2.bias"], 9 / (3 * 9 + 9)),
            (["0.weight", "0.bias", "1.weight"], 21 / 36),
        ],
    )
    def test_share(self, names, share):
        """Whichever is less, of the tensors (6) and of their values (3 times 9 and 3)."""
        net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
        fit = match_weights(net, {name: net.state_dict()[name] for name in names}, "f.pth", None)
        assert fit.share == pytest.approx(min(share, len(names) / 6))
        assert (fit.refusal(strict=False) is None) == (fit.share >= 0.5)
        assert fit.refusal(strict=True) is not None

    def test_one_large_layer_is_not_half_of_a_network(self):
        net = nn.Sequential(nn.Linear(100, 100), nn.Linear(2, 2), nn.Linear(2, 2))
        own = net.state_dict()
        fit = match_weights(net, {"0.weight": own["0.weight"], "0.bias": own["0.bias"]}, "f.pth", None)
        assert fit.share == pytest.approx(2 / 6)
        assert "less than half of the network" in fit.refusal(strict=False)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.complex64, torch.float8_e4m3fn])
    def test_types_that_are_no_weights(self, dtype):
        weights = STATE | {"0.bias": torch.zeros(2).to(dtype)}
        fit = match_weights(nn.Sequential(nn.Linear(2, 2)), weights, "f.pth", None)
        expected = f"f.pth: 0.bias is {str(dtype).removeprefix('torch.')}; weights are floats: save them as float32"
        assert fit.refusal(strict=False) == fit.refusal(strict=True) == expected

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_floats(self, dtype):
        net = nn.Sequential(nn.Linear(2, 2))
        fit = match_weights(net, {name: value.to(dtype) for name, value in STATE.items()}, "f.pth", None)
        copy_weights(net, fit)
        assert net[0].weight.dtype == torch.float32
        assert torch.equal(net[0].weight, STATE["0.weight"])

    def test_whole_numbers_where_the_network_has_them(self):
        net = nn.BatchNorm2d(2)
        weights = {**nn.BatchNorm2d(2).state_dict(), "num_batches_tracked": torch.tensor(7, dtype=torch.int32)}
        copy_weights(net, match_weights(net, weights, "f.pth", None))
        assert net.num_batches_tracked == 7

    @pytest.mark.parametrize(
        ("value", "dtype"), [(float("nan"), torch.float32), (float("-inf"), torch.float16), (1e300, torch.float64)]
    )
    def test_not_finite(self, value, dtype):
        """1e300 is finite in the file and not in the network."""
        net = nn.Sequential(nn.Linear(2, 2))
        before = net[0].weight.clone()
        weights = STATE | {"0.bias": torch.tensor([0, value], dtype=dtype)}
        fit = match_weights(net, weights, "f.pth", None)
        with pytest.raises(UserError, match=r"^f\.pth: 0\.bias .* not finite"):
            copy_weights(net, fit)
        assert torch.equal(net[0].weight, before), "nothing is copied"


def test_averaged_weights_of_a_file_of_several_networks():
    """StyleGAN's form: the generator, its average, the discriminator."""
    averaged = {name: tensor + 1 for name, tensor in STATE.items()}
    found, key = find_state_dict({"g": STATE, "g_ema": averaged, "d": STATE}, "f.pth", None)
    assert key == "g_ema"
    assert torch.equal(found["0.bias"], averaged["0.bias"])
