import pytest

from gramgan_plugin.errors import OptionError, Preempted, TrainingStopped, UserError
from gramgan_plugin.training.together import together
from gramgan_plugin.utils import distributed

SEVERITY = {None: 0, Preempted: 1, TrainingStopped: 2, UserError: 3}


@pytest.fixture
def another(monkeypatch):
    """Makes another process of the run have met a reason, and returns what this one has sent it."""
    sent: list[int] = []

    def set_reason(kind: type[Exception] | None) -> list[int]:
        def agree(value: int) -> int:
            sent.append(value)
            return max(value, SEVERITY[kind])

        monkeypatch.setattr(distributed, "agree", agree)
        return sent

    return set_reason


class TestTogether:
    def test_smoke(self, another):
        sent = another(None)
        with together():
            pass
        assert sent == [0]

    @pytest.mark.parametrize("error", [Preempted("x"), TrainingStopped("x"), OptionError("x"), OSError(28, "x")])
    def test_alone(self, error):
        with pytest.raises(type(error)) as caught, together():
            raise error
        assert caught.value is error

    @pytest.mark.parametrize("kind", [Preempted, TrainingStopped, UserError])
    def test_the_reason_of_another(self, another, kind):
        another(kind)
        with pytest.raises(kind, match="another process of this run ends it") as caught, together():
            pass
        assert type(caught.value) is kind

    def test_the_more_severe_counts(self, another):
        sent = another(TrainingStopped)
        with pytest.raises(TrainingStopped, match="another process"), together():
            raise Preempted("mine")
        with pytest.raises(OptionError, match="mine"), together():
            raise OptionError("mine")
        another(Preempted)
        with pytest.raises(TrainingStopped, match="mine"), together():
            raise TrainingStopped("mine")
        assert sent == [1, 3, 2]

    def test_a_bug_goes_out_at_once(self, another):
        sent = another(None)
        with pytest.raises(KeyError), together():
            raise KeyError
        assert sent == []

    def test_nobody_is_asked_when_a_process_is_gone(self, another):
        sent = another(None)
        with pytest.raises(distributed.PeerLost), together():
            raise distributed.PeerLost("x")
        assert sent == []
