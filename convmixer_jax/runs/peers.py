"""The other processes of a run: whether they are there, and what each is doing.

    peers = Peers(index=0, count=2, heard=exchange.heard, repeat=exchange.repeat)
    trouble = peers.look("update 1200", may_be_silent=False)     # every PAUSE seconds
    peers.leave("")

Each says every PAUSE seconds that it lives, on a topic of the coordination service. JAX notices a lost process, too,
but later, and then aborts all others.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from convmixer_jax.errors import ExitCode

PAUSE = 1.0  # seconds between two looks
# Looks without a word after which a process counts as lost. JAX aborts all of them 15 to 30 s after it was: its clients
# say that they live at half of the cluster's HEARTBEAT.
SILENT = 9
LINGER = 2  # looks for which the others stay when one has failed: they find a user's mistake for themselves
TOPIC = "watch"


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why a process should end, and with which exit code: all processes of a run end with the same."""

    words: str
    code: ExitCode = ExitCode.STUCK


class Peers:
    """What is known of them; counted in looks, so that a pause of this process makes nobody lost.

    index, count: this process, of so many. heard, repeat: of runs/exchange.py.
    """

    def __init__(
        self, index: int, count: int, heard: Callable[[str], dict[int, str]], repeat: Callable[[str, str], None]
    ) -> None:
        self.index, self._count, self._heard, self._repeat = index, count, heard, repeat
        self._beat = 0
        self._last: dict[int, dict[str, Any]] = {}
        self._unchanged: dict[int, int] = {}

    def look(self, doing: str, may_be_silent: bool) -> Trouble | None:
        """Says what this process is doing; returns who was lost and why this one should end, or None.

        may_be_silent: while Python may be held up for long (imports). Raises RuntimeError where there is
        nobody to ask.
        """
        self._beat += 1
        self._say({"beat": self._beat, "doing": doing, "may_be_silent": may_be_silent})
        for process, words in self._heard(TOPIC).items():
            known = json.loads(words)
            self._unchanged[process] = self._unchanged.get(process, 0) + 1 if known == self._last.get(process) else 0
            self._last[process] = known
        return next((trouble for process in self._last if (trouble := self._trouble(process))), None)

    def _trouble(self, process: int) -> Trouble | None:
        known, unchanged = self._last[process], self._unchanged[process]
        if process == self.index:
            return None
        if "left" in known:
            if not known["left"] or unchanged < LINGER:
                return None
            return Trouble(f"process {process} ended: {known['left']}", ExitCode(known["code"]))
        if unchanged < SILENT or known["may_be_silent"]:
            return None
        last = f"not a word in {unchanged * PAUSE:g} s, its last was {known['doing']!r}"
        return Trouble(f"process {process} was lost: {last}")

    def silent(self) -> list[int]:
        """Returns who has not said a word for SILENT looks, or never: whoever starts may be silent, but may be lost."""
        here = (each for each in range(self._count) if "left" not in self._last.get(each, {}))
        return [each for each in here if each != self.index and self._unchanged.get(each, SILENT) >= SILENT]

    def describe(self) -> list[str]:
        """Returns a line on each of the others: what it said last."""
        others = sorted(self._last.items())
        lines = [(process, f"process {process}: {known.get('doing', 'has ended')}") for process, known in others]
        return [line for process, line in lines if process != self.index]

    @property
    def others(self) -> int:
        """How many of the others are there, as far as is known."""
        here = [process for process, known in self._last.items() if "left" not in known]
        return sum(process != self.index and self._unchanged[process] < SILENT for process in here)

    def leave(self, reason: str, code: ExitCode) -> None:
        """Says that this process ends. reason: "" where all is well; otherwise the others end, too, with this code."""
        self._say({"left": reason, "code": code})

    def _say(self, words: dict[str, Any]) -> None:
        self._repeat(TOPIC, json.dumps(words))
