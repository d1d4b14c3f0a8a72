"""Ending a run on all its processes at once, whichever of them has the reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from gramgan_plugin.errors import Preempted, TrainingStopped, UserError
from gramgan_plugin.training import distributed

# The graver reason counts: what is saved after a signal must not be saved after a failure.
_GRAVITY: tuple[type[UserError], ...] = (Preempted, TrainingStopped, UserError)


@contextmanager
def together() -> Iterator[None]:
    """Agree, once the block is done, whether one of the processes has met a reason to end the run.

    A ``UserError`` or ``OSError`` of the block is held back until all processes are here; then each of them raises:
    its own error if it is as grave as the gravest, else one of that kind. So all of them stop at the same iteration,
    and none waits for another that has gone. Every process has to come here; the block itself must not talk to the
    others after a point where it may fail on one of them alone.

    Raises:
        UserError: of the kind of the gravest: any, ``TrainingStopped``, ``Preempted``.
    """
    own: UserError | OSError | None = None
    try:
        yield
    except distributed.PeerLost:
        raise
    except (UserError, OSError) as error:
        own = error
    mine = 0 if own is None else _gravity(own)
    gravest = distributed.agree(mine)
    if own is not None and mine == gravest:
        raise own
    if gravest:
        raise _GRAVITY[gravest - 1]("another process of this run ends it; its own message says why")


def _gravity(error: Exception) -> int:
    """1 for a signal, 2 for a run that ends itself, 3 for what has gone wrong."""
    kinds = [kind for kind in _GRAVITY[:-1] if isinstance(error, kind)]
    return _GRAVITY.index(kinds[0]) + 1 if kinds else len(_GRAVITY)
