"""Downloads resume, change over to the next URL, are checked, and never show half a file."""

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources import download
from convmixer_jax.data.sources.download import fetch
from convmixer_jax.errors import UserError
from tests.data.archives import serving

CONTENT = np.random.default_rng(0).bytes(5000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "not yet there" / "x.tar.gz"


def part_of(destination: Path) -> Path:
    return destination.with_name("x.tar.gz.part")


def leave_part(destination: Path, content: bytes) -> None:
    destination.parent.mkdir()
    part_of(destination).write_bytes(content)


# What is asked of the server, in order, for each way it behaves and each part that an earlier process left.
PATHS_TO_SUCCESS = {
    "nothing special": (["good"], b"", [("good", None)]),
    "no length stated": (["no-length"], b"", [("no-length", None)]),
    "not found, then good": (["missing", "good"], b"", [("missing", None), ("good", None)]),
    "wrong bytes, then good": (["other-bytes", "good"], b"", [("other-bytes", None), ("good", None)]),
    "cut once": (["cut-once"], b"", [("cut-once", None), ("cut-once", "bytes=1000-")]),
    "cut without progress, then good": (["cut-at-once", "good"], b"", [("cut-at-once", None), ("good", None)]),
    "goes on from an earlier part": (["good"], CONTENT[:2000], [("good", "bytes=2000-")]),
    "goes on from another URL": (
        ["missing", "good"],
        CONTENT[:2000],
        [("missing", "bytes=2000-"), ("good", "bytes=2000-")],
    ),
    "range ignored": (["ignores-range"], CONTENT[:2000], [("ignores-range", "bytes=2000-")]),
    "another range, then good": (
        ["wrong-range", "good"],
        CONTENT[:2000],
        [("wrong-range", "bytes=2000-"), ("good", "bytes=2000-")],
    ),
    "part is complete": (["good"], CONTENT, [("good", "bytes=5000-")]),
    "part is damaged": (["good"], bytes(2000), [("good", "bytes=2000-"), ("good", None)]),
    "part is too long": (["good"], CONTENT + b"x", [("good", "bytes=5001-"), ("good", None)]),
}


@pytest.mark.parametrize("paths, part, requests", PATHS_TO_SUCCESS.values(), ids=PATHS_TO_SUCCESS)
def test_the_file_arrives(server, destination, paths, part, requests):
    if part:
        leave_part(destination, part)
    fetch([server.url(path) for path in paths], destination, MD5, "numbers")
    assert destination.read_bytes() == CONTENT
    assert not part_of(destination).exists()
    assert server.requests == requests


def test_an_existing_file_is_taken_as_it_is(server, tmp_path):
    (tmp_path / "x").write_bytes(b"mine")
    fetch([server.url("good")], tmp_path / "x", MD5, "numbers")
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert server.requests == []


def test_progress_goes_to_stderr(server, destination, capsys):
    fetch([server.url("good")], destination, MD5, "numbers")
    out, err = capsys.readouterr()
    assert out == ""
    assert "numbers" in err


def test_half_a_file_is_never_seen(server, destination):
    seen = []
    server.when_half_sent = lambda: seen.append(destination.exists())
    fetch([server.url("good")], destination, MD5, "numbers")
    assert seen == [False]
    assert destination.exists()


FAILURES = {
    "missing": "404 Not Found",
    "other-bytes": f"its md5 is {hashlib.md5(CONTENT[::-1]).hexdigest()}, not {MD5}",
    "cut-at-once": "cut at 0 of 5,000 bytes",
    "silent": "timed out",
}


def test_when_all_fail_one_line_names_each_url_and_its_reason(server, destination, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    with serving(b"") as gone:
        refused = gone.url("good")
    with pytest.raises(UserError) as caught:
        fetch([*map(server.url, FAILURES), refused], destination, MD5, "numbers")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("numbers could not be downloaded: tried ")
    for path, reason in FAILURES.items():
        assert f"{server.url(path)} ({reason})" in message
    assert f"{refused} (Connection refused)" in message
    assert not destination.exists()


def test_a_stalled_connection_is_resumed(server, destination, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    stalls_s = iter([1.0])
    server.when_half_sent = lambda: time.sleep(next(stalls_s, 0.0))
    fetch([server.url("good")], destination, MD5, "numbers")
    assert destination.read_bytes() == CONTENT
    assert server.requests == [("good", None), ("good", "bytes=2500-")]


def test_wrong_bytes_are_not_kept(server, destination):
    with pytest.raises(UserError):
        fetch([server.url("other-bytes")], destination, MD5, "numbers")
    assert not part_of(destination).exists()


def test_a_server_that_always_cuts_is_given_up_and_its_bytes_are_kept(server, destination, monkeypatch):
    monkeypatch.setattr(download, "_MAX_CUTS", 1)
    with pytest.raises(UserError, match=r"cut at 1,000 of 5,000 bytes"):
        fetch([server.url("cut-once")], destination, MD5, "numbers")
    assert part_of(destination).read_bytes() == CONTENT[:1000]


def test_a_folder_that_cannot_be_written_is_a_user_error(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="numbers cannot be stored as .* choose a folder"):
        fetch([server.url("good")], tmp_path / "file" / "x", MD5, "numbers")


def fetch_in_threads(url: str, destination: Path) -> None:
    threads = [threading.Thread(target=fetch, args=([url], destination, MD5, "numbers")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


FETCH = """
import pathlib, sys
from convmixer_jax.data.sources.download import fetch
fetch([sys.argv[1]], pathlib.Path(sys.argv[2]), sys.argv[3], "numbers")
"""


def fetch_in_processes(url: str, destination: Path) -> None:
    command = [sys.executable, "-c", FETCH, url, str(destination), MD5]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]


@pytest.mark.parametrize("fetch_twice", [fetch_in_threads, fetch_in_processes])
def test_of_two_at_once_one_downloads_and_the_other_waits(server, destination, fetch_twice):
    # Time for the second to come while the first is half through; it is not needed for the test to pass.
    server.when_half_sent = lambda: time.sleep(1.0)
    fetch_twice(server.url("good"), destination)
    assert destination.read_bytes() == CONTENT
    assert server.requests == [("good", None)]
