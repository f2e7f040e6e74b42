"""How far a pass over images has come, on standard error: a bar on a terminal, now and then a line elsewhere.

with Counting("decoding train", total=100_000, start=25_000) as counting:
    counting.advance(1_000)
"""

import time

from convmixer_jax.runs.progress import Progress

_LINE_EVERY_S = 10.0


class Counting(Progress):
    """Counts images; images per second and time left come from those of this pass. what: begins each line."""

    def __init__(self, what: str, total: int, start: int = 0):
        super().__init__(total, start, batch_size=1)
        self._what, self._first = what, start
        self._begun = self._told = time.monotonic()
        self._bar.set_description_str(what)

    def advance(self, images: int) -> None:
        """Counts images."""
        super().advance(images)
        now = time.monotonic()
        if not self._terminal and now - self._told > _LINE_EVERY_S:
            self._told = now
            pace = (self.step - self._first) / (now - self._begun)
            self.say(
                f"{self._what}: {self.step:,} of {self.total_steps:,} images, {pace:,.0f} images/s, "
                f"{self.time_left()} left"
            )
