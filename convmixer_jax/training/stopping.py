"""When to stop for a signal: all processes before the same piece of work.

    stopping = Stopping(stop, processes=jax.process_count())
    while not stopping.due():
        ...                     # send one piece of work to the devices, keep IN_FLIGHT of them under way

A piece is a dispatch of updates or a batch of an evaluation. No process waits for another. Each asks, before it sends a
piece, whether anybody has proposed to stop. Who gets a signal after n pieces proposes to stop before piece
n + IN_FLIGHT + 1, counted from 0, and sends no piece until the proposal is known. Nobody else can have passed that one:
to send it takes the end of piece n, which all processes make together, and so the proposal.
"""

from collections.abc import Callable

from convmixer_jax.errors import ExitCode
from convmixer_jax.runs import exchange
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.progress import tell
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.runs.watchdog import Watchdog

# Pieces that may be under way at once: one runs while the next is handed over, and no more pile up.
IN_FLIGHT = 2
TOPIC = "stop"
# Of the grace after a signal: what is left is for the process to end in.
SHARE = 0.9


class AbandonedError(Exception):
    """An evaluation was left for a signal; it is made again when the run goes on."""


class Stopping:
    """Counts pieces of work. propose, heard: as in runs/exchange.py, for several processes."""

    def __init__(
        self,
        stop: StopRequest,
        processes: int,
        propose: Callable[[str, str], str] = exchange.propose,
        heard: Callable[[str], dict[int, str]] = exchange.heard,
    ):
        self._stop, self._several = stop, processes > 1
        self._propose, self._heard = propose, heard
        self._sent = 0
        self._stop_at: int | None = None

    def due(self) -> bool:
        """Whether to stop now; otherwise the next piece counts as sent."""
        if self._stop_at is None:
            self._stop_at = self._agreed() if self._several else (self._sent if self._stop.requested else None)
        if self._stop_at is not None and self._sent >= self._stop_at:
            return True
        self._sent += 1
        return False

    def _agreed(self) -> int | None:
        if self._stop.requested:
            return int(self._propose(TOPIC, str(self._sent + IN_FLIGHT + 1)))
        said = self._heard(TOPIC)
        return int(said[0]) if said else None

    @property
    def reason(self) -> str:
        """What to tell a person."""
        return f"{self._stop.received.name if self._stop.received else 'a signal to another process'} received"


def grace_warning(grace: float, piece_seconds: float, save_seconds: float, several: bool) -> str | None:
    """Returns a line where a stop takes longer than `grace` seconds, as far as measured; None where it does not.

    piece_seconds: of the longest dispatch. save_seconds: from the beginning of a save to its confirmation.
    """
    pieces = IN_FLIGHT + several
    needed = pieces * piece_seconds + save_seconds
    if needed <= SHARE * grace:
        return None
    return (
        f"warning: config.stop_grace_seconds is {grace:g}, but to stop and save takes some {needed:.0f} s ({pieces} "
        f"dispatches under way of {piece_seconds:.1f} s, a save of {save_seconds:.1f} s): after a signal the run may "
        "go back to the checkpoint before; allow more, lower config.steps_per_dispatch, or save more often"
    )


def limit_grace(stop: StopRequest, seconds: float, checkpoints: Checkpoints, watch: Watchdog) -> None:
    """Ends the process with 75 when a signal was not served in so many seconds, unless updates would be lost by it.

    What is saved stays. Where no step is saved yet the first one may be on its way, and so the process goes on.
    """

    def give_up() -> None:
        kept = max(checkpoints.steps(), default=None)
        if kept is None:
            tell(f"warning: config.stop_grace_seconds is over, but nothing is saved yet; waiting for {watch.activity}")
            return
        trouble = f"not stopped within config.stop_grace_seconds, which is {seconds:g}; step {kept} is saved"
        watch.end(trouble, ExitCode.STOPPED, stacks=False)

    stop.limit(SHARE * seconds, give_up)
