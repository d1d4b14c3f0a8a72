import pytest
import torch
from torch import nn

from gramgan_plugin.steps.update import move_average


@pytest.mark.parametrize(("found_inf", "expected"), [(0.0, [1.0, 2.0]), (1.0, [0.0, 0.0])])
def test_parameters_move_and_buffers_are_copied(found_inf: float, expected: list[float]) -> None:
    average, net = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        average.weight.zero_()
        net.weight.copy_(torch.tensor([4.0, 8.0]))
    net.running_mean.fill_(3.0)
    net.num_batches_tracked.fill_(7)
    move_average(average, net, decay=0.75, found_inf=torch.tensor(found_inf))
    assert average.weight.tolist() == expected
    assert average.running_mean.tolist() == [3.0, 3.0]
    assert int(average.num_batches_tracked) == 7
    assert net.weight.tolist() == [4.0, 8.0]
