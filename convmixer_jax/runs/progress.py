"""What a person sees of a run: a progress bar on a terminal, a line per report elsewhere.

    with Progress(total_steps, start_step, batch_size) as progress:
        progress.advance(1)

Everything goes to standard error; standard output is for results, which `show` prints beside a bar.
"""

import os
import re
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

# What would break a line or a terminal, and what stands for the bytes of a name that is no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Returns text, such as the name of a file, as something that can be printed and drawn, in one line."""
    return _UNPRINTABLE.sub("\ufffd", text)


def duration(seconds: float) -> str:
    """Returns seconds as h:mm:ss."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def nowhere() -> TextIO:
    """Returns a stream that swallows what is written, to stand in for one that nobody reads."""
    return open(os.devnull, "w")


def tell(line: str) -> None:
    """Prints a line for a person on standard error, above a bar where there is one."""
    try:
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    except BrokenPipeError:
        # Whoever was watching has gone; the run goes on, and its files tell the same.
        sys.stderr = nowhere()


def show(line: str) -> None:
    """Prints a line of results on standard output, above a bar where there is one. Raises BrokenPipeError."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


class Progress:
    """Counts updates on standard error; images per second and time left come from the updates of this start."""

    def __init__(self, total_steps: int, start_step: int, batch_size: int, enabled: bool = True):
        self.total_steps, self.start_step, self.step, self.batch_size = total_steps, start_step, start_step, batch_size
        self.enabled = enabled
        self._started = time.monotonic()
        # A terminal that does not know its size (a container's, say) gets lines: tqdm would show nothing on it.
        self._terminal = enabled and sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 1
        self._bar = tqdm(
            total=total_steps * batch_size,
            initial=start_step * batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def advance(self, updates: int) -> None:
        """Counts updates."""
        self.step += updates
        self._bar.update(updates * self.batch_size)

    def time_left(self) -> str:
        """Returns the time to the last update at the pace so far, as h:mm:ss."""
        pace = (time.monotonic() - self._started) / max(self.step - self.start_step, 1)
        return duration(pace * (self.total_steps - self.step))

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self.enabled:
            tell(line)

    def report(self, row: dict[str, float]) -> None:
        """Shows a row of training metrics: beside the bar on a terminal, else as a line."""
        facts = (
            f"loss {row['train/loss']:.4f}  top1 {row['train/top1']:.4f}  lr {row['schedule/learning_rate']:.2g}  "
            f"input wait {row['perf/input_wait']:.1%}"
        )
        if self._terminal:
            self._bar.set_postfix_str(facts)
        else:
            self.say(
                f"step {row['step']}/{self.total_steps}  epoch {row['epoch']:.2f}  {facts}  "
                f"{row['perf/images_per_sec']:.0f} images/s  {self.time_left()} left"
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
