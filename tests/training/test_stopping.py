"""All processes stop before the same piece of work, however they are interleaved, and none waits for another."""

import random
import signal
import types

import pytest

from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training.stopping import IN_FLIGHT, Stopping, grace_warning, limit_grace


class Service:
    """In the place of the coordination service."""

    def __init__(self):
        self.said: dict[int, str] = {}

    def propose(self, topic: str, words: str) -> str:
        return self.said.setdefault(0, words)

    def heard(self, topic: str) -> dict[int, str]:
        return dict(self.said)


def requested(number: signal.Signals | None) -> StopRequest:
    stop = StopRequest()
    stop.received = number
    return stop


def test_a_process_alone_stops_at_once():
    stop = requested(None)
    stopping = Stopping(stop, processes=1)
    assert [stopping.due() for _ in range(5)] == [False] * 5
    stop.received = signal.SIGTERM
    assert [stopping.due() for _ in range(2)] == [True, True]
    assert stopping.reason == "SIGTERM received"


def stops_of(seed: int, processes: int) -> tuple[list[int], dict[int, int]]:
    """Lets processes go on in a random order, some fast and some slow, and sends signals to some of them.

    A process may send a piece once the one before its last IN_FLIGHT has ended, which all must have sent. Returns the
    pieces that each has sent when it stops, and those it had sent when its signal came.
    """
    chance, service = random.Random(seed), Service()
    stops = [requested(None) for _ in range(processes)]
    each = [Stopping(stop, processes, service.propose, service.heard) for stop in stops]
    sent, ended, signalled = [0] * processes, [False] * processes, {}
    speeds = [chance.random() for _ in range(processes)]
    to_signal = chance.sample(range(processes), chance.randint(1, processes))
    moments = {process: chance.randint(0, 60) for process in to_signal}
    while not all(ended):
        (process,) = chance.choices(range(processes), speeds)
        if sent[process] >= moments.get(process, 1000) and process not in signalled:
            signalled[process] = sent[process]
            stops[process].received = signal.SIGTERM
        if ended[process] or sent[process] - IN_FLIGHT > min(sent):
            continue
        if each[process].due():
            ended[process] = True
        else:
            sent[process] += 1
        assert max(sent) < 100
    return sent, signalled


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_all_stop_before_the_same_piece_soon_after_the_first_signal(processes):
    for seed in range(300):
        sent, signalled = stops_of(seed, processes)
        assert len(set(sent)) == 1, seed
        assert sent[0] <= min(signalled.values()) + 2 * IN_FLIGHT + 1, seed


def test_who_got_no_signal_says_so():
    service = Service()
    first, other = (Stopping(requested(number), 2, service.propose, service.heard) for number in (signal.SIGINT, None))
    sent = [0, 0]
    for process, stopping in enumerate((first, other)):
        while not stopping.due():
            sent[process] += 1
    assert sent == [IN_FLIGHT + 1] * 2
    assert (first.reason, other.reason) == ("SIGINT received", "a signal to another process received")


@pytest.mark.parametrize("grace, piece, save, several, warns", [
    (30.0, 1.0, 20.0, False, False),  # 22 of 27
    (30.0, 1.0, 26.0, False, True),
    (30.0, 9.0, 8.0, False, False),  # 26
    (30.0, 9.0, 8.0, True, True),  # 35: one more dispatch may have to be made
])  # fmt: skip
def test_a_stop_that_takes_longer_than_the_grace_is_told(grace, piece, save, several, warns):
    warning = grace_warning(grace, piece, save, several)
    assert (warning is not None) == warns
    if warning:
        assert "config.stop_grace_seconds is 30" in warning


@pytest.mark.parametrize("saved, ends", [([500, 1000], True), ([], False)])
def test_when_the_grace_is_over_the_process_ends_unless_nothing_is_saved(saved, ends, capsys):
    ended, limits = [], []
    watch = types.SimpleNamespace(activity="the batches of update 7", end=lambda *words, **more: ended.append(words))
    stop = types.SimpleNamespace(limit=lambda seconds, give_up: limits.append((seconds, give_up)))
    limit_grace(stop, 30.0, types.SimpleNamespace(steps=lambda: saved), watch)
    ((seconds, give_up),) = limits
    assert seconds == 27.0
    give_up()
    if ends:
        trouble = "not stopped within config.stop_grace_seconds, which is 30; step 1000 is saved"
        assert ended == [(trouble, ExitCode.STOPPED)]
    else:
        assert ended == []
        assert "waiting for the batches of update 7" in capsys.readouterr().err
