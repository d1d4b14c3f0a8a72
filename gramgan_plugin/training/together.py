"""End a run on all its processes at the same iteration, whichever of them has the reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from gramgan_plugin.errors import Preempted, TrainingStopped, UserError
from gramgan_plugin.utils import distributed

# From mild to severe. The most severe counts: what is saved after a signal must not be saved after a failure.
_SEVERITY: tuple[type[UserError], ...] = (Preempted, TrainingStopped, UserError)


@contextmanager
def together() -> Iterator[None]:
    """Agree at the end of a block whether one of the processes has a reason to end the run.

    A ``UserError`` or ``OSError`` of the block is kept until all processes are here. Then each process raises its own
    error if that is as severe as the worst, else one of the worst kind. So all stop at the same iteration, and none
    waits for one that has ended. Every process must enter the block. After a point where the block may fail on one
    process alone, it must not communicate with the others.

    Raises:
        UserError: of the worst kind: ``Preempted``, ``TrainingStopped`` or any other.
    """
    own: UserError | OSError | None = None
    try:
        yield
    except distributed.PeerLost:
        raise
    except (UserError, OSError) as error:
        own = error
    mine = 0 if own is None else _severity(own)
    worst = distributed.agree(mine)
    if own is not None and mine == worst:
        raise own
    if worst:
        raise _SEVERITY[worst - 1]("another process of this run ends it; its own message says why")


def _severity(error: Exception) -> int:
    """Return 1 for a signal, 2 for a run that stops itself, 3 for any other error."""
    kinds = [kind for kind in _SEVERITY[:-1] if isinstance(error, kind)]
    return _SEVERITY.index(kinds[0]) + 1 if kinds else len(_SEVERITY)
