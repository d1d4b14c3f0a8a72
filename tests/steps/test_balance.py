import numpy as np
import pytest
import torch
from scipy.special import softmax

from gramgan_plugin.steps.balance import SoftmaxBalance, build_balance


def test_against_scipy():
    values = torch.tensor([0.3, 0.1, 0.25], dtype=torch.float64, requires_grad=True)
    weights = SoftmaxBalance(0.1)(values)
    np.testing.assert_allclose(weights.numpy(), softmax(np.array([3.0, 1.0, 2.5])))
    assert not weights.requires_grad
    assert SoftmaxBalance(0.1, detach=False)(values).requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "mean"}, "type: expected one of softmax, got 'mean'"),
        ({"temperature": 0}, "temperature: must be above 0"),
        ({"temperatur": 1}, "unexpected keyword argument 'temperatur'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_balance(options)


def test_built():
    assert build_balance({"type": "softmax", "temperature": 0.5}).temperature == 0.5
