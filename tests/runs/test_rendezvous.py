"""Processes meet, or all of them say alike why not. Threads stand for processes: nothing here needs JAX."""

import concurrent.futures
import json
import socket
import threading
import time

import pytest

from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.runs import rendezvous
from convmixer_jax.runs.rendezvous import Place, meet

HOST = "127.0.0.1"
LONG, SHORT = 60.0, 1.5  # seconds to wait: where all come, and where somebody does not


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def outcome(place: Place, facts: dict, seconds: float) -> str:
    try:
        meet(place, facts, seconds)
    except (UserError, RunAgainError) as error:
        return f"{type(error).__name__}: {error}"
    return "met"


def outcomes(indices: list[int], count: int, seconds: float = LONG, facts: dict[int, dict] | None = None) -> list[str]:
    """Returns what each of the processes ends with; facts: by index, where they differ from the others'."""
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(len(indices)) as pool:
        own = [{"config.seed": 0, "jax": "0.10"} | (facts or {}).get(index, {}) for index in indices]
        places = [Place(HOST, port, count, index) for index in indices]
        return list(pool.map(outcome, places, own, [seconds] * len(indices)))


@pytest.mark.parametrize("indices", [[0], [0, 1], [3, 1, 0, 2]])
def test_all_meet_in_any_order(indices):
    assert outcomes(indices, len(indices)) == ["met"] * len(indices)


def test_the_port_is_free_afterwards():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda index: outcome(Place(HOST, port, 2, index), {}, LONG), [0, 1])) == ["met"] * 2
    with socket.socket() as next_user:
        next_user.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, gRPC's too
        next_user.bind((HOST, port))


def test_a_difference_ends_all_with_the_same_line():
    host = socket.gethostname()
    told = outcomes([0, 1, 2], 3, facts={2: {"config.seed": 7}})
    line = f"config.seed is 0 on process 0 ({host}), but 7 on process 2 ({host}): start all processes of a run alike"
    assert told == [f"UserError: {line}"] * 3


def test_a_fact_that_one_does_not_know():
    (told,) = set(outcomes([0, 1], 2, facts={1: {"config.new": 1}}))
    assert "config.new is not there on process 0" in told


def test_those_who_came_are_told_with_those_who_did_not():
    host = socket.gethostname()
    told = outcomes([0, 2], 4, seconds=SHORT)
    assert len(set(told)) == 1
    assert told[0].startswith("RunAgainError: 2 of 4 processes came to --coordinator 127.0.0.1:")
    assert told[0].endswith(f"within 1.5 s (0 ({host}), 2 ({host})), but not 1, 3: run again")


def test_a_number_that_came_twice():
    (told,) = set(outcomes([0, 1, 1], 3))
    host = socket.gethostname()
    assert told == f"UserError: --process_id 1 came 2 times ({host}, {host}): each process needs a number of its own"


def test_another_count_of_processes():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        told = set(pool.map(lambda at: outcome(Place(HOST, port, *at), {}, LONG), [(2, 0), (3, 1)]))
    assert len(told) == 1
    assert "UserError: --num_processes is 2 on process 0" in told.pop()


def test_nobody_at_the_address():
    told = outcome(Place(HOST, free_port(), 2, 1), {}, SHORT)
    assert told.startswith("RunAgainError: process 1 waited 1.5 s for process 0 at --coordinator 127.0.0.1:")
    assert "refused" in told


@pytest.mark.parametrize("name", ["no-such-host.invalid", ".a..b", 300 * "x"])
def test_no_such_host(name):
    told = outcome(Place(name, 1234, 2, 1), {}, 0.3)
    assert told.startswith("UserError: process 1 waited")
    assert told.endswith("there is no such host; give the name or address of process 0's")


@pytest.mark.parametrize("host, remark", [
    ("no-such-host.invalid", " (process 0 knows no host no-such-host.invalid)"),
    ("192.0.2.1", " (192.0.2.1 is no address of process 0's machine)"),
])  # fmt: skip
def test_an_address_that_is_not_that_of_process_0(host, remark):
    told = outcome(Place(host, free_port(), 2, 0), {}, 0.3)
    assert told.endswith(f", but not 1{remark}: run again")


@pytest.fixture
def taken():
    with socket.create_server((HOST, 0)) as server:
        yield server


def test_a_port_in_use(taken, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.3)
    port = taken.getsockname()[1]
    told = outcome(Place(HOST, port, 2, 0), {}, SHORT)
    assert told.startswith(f"UserError: --coordinator 127.0.0.1:{port}: process 0 cannot listen at port {port} (")


def test_something_else_at_the_port(taken):
    def hang_up() -> None:
        for _ in range(2):
            connection, _ = taken.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            connection.close()

    threading.Thread(target=hang_up, daemon=True).start()
    told = outcome(Place(HOST, taken.getsockname()[1], 2, 1), {}, 0.3)
    assert "is not process 0 of such a run" in told


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "x"}\n', b"\xff\n"])
def test_strangers_are_hung_up_on(words, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.3)
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lead = pool.submit(outcome, Place(HOST, port, 2, 0), {}, LONG)
        with connect(port) as stranger:
            stranger.sendall(words)
            assert outcome(Place(HOST, port, 2, 1), {}, LONG) == "met"
        assert lead.result() == "met"


def connect(port: int) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection((HOST, port), timeout=10)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def test_one_who_left_is_waited_for_again():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        lead = pool.submit(outcome, Place(HOST, port, 3, 0), {}, LONG)
        with connect(port) as gone:
            gone.sendall(json.dumps({"process": 1, "host": "x", "facts": {"--num_processes": "3"}}).encode() + b"\n")
        others = [pool.submit(outcome, Place(HOST, port, 3, index), {}, LONG) for index in (1, 2)]
        assert [each.result() for each in (lead, *others)] == ["met"] * 3


@pytest.mark.parametrize("host, address, bind", [
    ("10.0.0.1", "10.0.0.1:99", "[::]:99"),
    ("fe80::1", "[fe80::1]:99", "[::]:99"),
    ("127.0.0.1", "127.0.0.1:99", "127.0.0.1:99"),
    ("::1", "[::1]:99", "[::1]:99"),
])  # fmt: skip
def test_addresses(host, address, bind):
    place = Place(host, 99, 2, 0)
    assert (place.address, place.bind_address) == (address, bind)
