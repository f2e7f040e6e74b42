"""What processes tell each other without their devices, so from any thread, while updates are under way.

    tell("save 3", "done")
    words = [hear("save 3", process) for process in range(jax.process_count())]
    stop_at = propose("stop", "12")          # the first proposal counts, for all
    repeat("watch", "still here")
    newest = heard("watch")
    meet("save 3 written", unless="save 3 failed", seconds=600)

It goes through the coordination service that `jax.distributed` starts; one process alone needs none.
"""

import time
from typing import Any

import jax
from jax._src import distributed  # jax.distributed itself has no such call

TIMEOUT_SECONDS = 600
PAUSE = 0.2  # seconds between two looks for the others


class OtherFailedError(Exception):
    """A process that was waited for has failed."""


def _client() -> Any:
    client = distributed.global_state.client
    assert client is not None, "several processes without jax.distributed.initialize()"
    return client


def tell(topic: str, words: str) -> None:
    """Says `words` on a topic, which nobody may have used before, to all processes."""
    _client().key_value_set(f"{topic}/{jax.process_index()}", words)


def repeat(topic: str, words: str) -> None:
    """Says `words` in the place of what this process said on the topic before."""
    _client().key_value_set(f"{topic}/{jax.process_index()}", words, allow_overwrite=True)


def hear(topic: str, process: int) -> str:
    """Returns what a process says on a topic, once it does. Raises RuntimeError, naming it, where it says nothing."""
    try:
        words: str = _client().blocking_key_value_get(f"{topic}/{process}", TIMEOUT_SECONDS * 1000)
    except RuntimeError as error:
        raise RuntimeError(f"process {process} said nothing on {topic!r} in {TIMEOUT_SECONDS} s ({error})") from error
    return words


def heard(topic: str) -> dict[int, str]:
    """Returns, by process, what was said on a topic so far; asks once, without waiting for anybody."""
    return {int(key.rpartition("/")[2]): words for key, words in _client().key_value_dir_get(f"{topic}/")}


def propose(topic: str, words: str) -> str:
    """Returns the proposal of whoever was the first to make one: this one, perhaps."""
    try:
        _client().key_value_set(f"{topic}/0", words)
    except RuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
    return heard(topic)[0]


def meet(topic: str, unless: str, seconds: float) -> None:
    """Returns when all processes have called this.

    topic: never used before. unless: the topic on which a process that cannot come says why: raises OtherFailedError
    then. Raises TimeoutError, naming who is missing, after so many seconds.
    """
    tell(topic, "")
    until = time.monotonic() + seconds
    while missing := set(range(jax.process_count())) - heard(topic).keys():
        for process, words in heard(unless).items():
            raise OtherFailedError(f"process {process}: {words}")
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(missing)} did not come in {seconds:.0f} s")
        time.sleep(PAUSE)


def forget(topic: str) -> None:
    """Removes all that was said on a topic, and on those whose names go on with a slash."""
    _client().key_value_delete(f"{topic}/")
