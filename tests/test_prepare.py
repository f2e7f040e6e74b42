"""The command that makes data sets ready: what it tells, its exit codes, and every mistake in one line."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convmixer_jax.data.datasets import DATASETS, OPENERS
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.prepare import main
from convmixer_jax.preparing import archives, checked, counting
from convmixer_jax.preparing.checked import examine, prepare_cifar
from convmixer_jax.preparing.preparations import PREPARATIONS, Preparation, find_preparation
from tests.data.archives import archive_bytes, spec_with, write_archive, write_python_folder
from tests.preparing.tiny import use_small_tiny, write_tiny

pytestmark = pytest.mark.usefixtures("elsewhere")
ROOT = Path(__file__).parents[1]
ARCHIVE = archive_bytes()


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    """On a slow machine there would be some, ten seconds apart, beside what a command tells."""
    monkeypatch.setattr(counting, "_LINE_EVERY_S", math.inf)


@pytest.fixture
def small_cifar(monkeypatch):
    """CIFAR-10 with 60 and 10 images, whose only URL is a port of this machine that nobody listens to."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    spec = spec_with(urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",), md5=hashlib.md5(ARCHIVE).hexdigest())
    row = dataclasses.replace(
        DATASETS["cifar10"],
        load=lambda data_dir, split: Examples(*load_cifar(data_dir, split, spec)),
        num_examples={split: spec.num_examples(split) for split in spec.files},
    )
    monkeypatch.setitem(DATASETS, "cifar10", row)
    monkeypatch.setitem(PREPARATIONS, "cifar10", Preparation(functools.partial(prepare_cifar, spec=spec), spec.archive))
    return spec


def prepared(capsys, *arguments: str) -> str:
    """Returns what a command tells that succeeds."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def refused(capsys, *arguments: str) -> str:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_every_preparation_is_of_a_data_set_and_others_are_looked_at():
    assert set(PREPARATIONS) <= set(DATASETS) | set(OPENERS)
    assert all(find_preparation(name).prepare is examine for name in ("digits", "imagenet", "folder:x", "tfds:x"))


def test_digits(capsys):
    told = prepared(capsys, "digits", "--data_dir=nowhere")
    assert "train: 1,437 images as 8x8x1, 10 classes, " in told
    assert told.endswith("digits is ready: nothing has to be made\n")
    assert not Path("nowhere").exists()
    assert "digits: no bad image of 1,797; 0 images" in prepared(capsys, "digits", "--verify")


def test_an_archive_is_taken_checked_and_remembered(capsys, monkeypatch, small_cifar):
    Path("mine.tar.gz").write_bytes(ARCHIVE)
    told = prepared(capsys, "cifar10", "--data_dir=data", "--from=mine.tar.gz")
    assert "train: 60 images as 32x32x3, 10 classes, 6 of each, SHA-256 of pixels and labels " in told
    assert "test: 10 images as 32x32x3, 10 classes, 1 of each, " in told
    assert told.endswith("cifar10 is ready in data\n")
    assert sorted(path.name for path in Path("data").iterdir()) == [".prepared", small_cifar.archive]
    assert Path("data", small_cifar.archive).samefile("mine.tar.gz")
    monkeypatch.setattr(checked, "open_split", lambda *_: pytest.fail("read again"))
    again = prepared(capsys, "cifar10", "--data_dir=data")
    assert again == told.replace("ready in data", "ready in data already: nothing to do")


def test_what_has_changed_is_checked_again(capsys, small_cifar):
    write_archive(Path("data"))
    prepared(capsys, "cifar10", "--data_dir=data")
    write_python_folder(Path("data"))
    assert prepared(capsys, "cifar10", "--data_dir=data").endswith("cifar10 is ready in data\n")
    Path("data/.prepared/cifar10.json").write_text("{")
    assert prepared(capsys, "cifar10", "--data_dir=data").endswith("cifar10 is ready in data\n")
    Path("data", small_cifar.python_folder, "test_batch").write_bytes(b"")
    assert "test_batch" in refused(capsys, "cifar10", "--data_dir=data")


def test_another_disk_gets_a_copy(capsys, monkeypatch, small_cifar):
    def no_link(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(archives.os, "link", no_link)
    Path("mine.tar.gz").write_bytes(ARCHIVE)
    prepared(capsys, "cifar10", "--data_dir=data", "--from=mine.tar.gz")
    assert not Path("data", small_cifar.archive).samefile("mine.tar.gz")
    assert Path("data", small_cifar.archive).read_bytes() == ARCHIVE


def test_another_file_is_replaced_only_when_forced(capsys, small_cifar):
    Path("mine.tar.gz").write_bytes(ARCHIVE)
    Path("data").mkdir()
    Path("data", small_cifar.archive).write_bytes(b"mine, too")
    arguments = ["cifar10", "--data_dir=data", "--from=mine.tar.gz"]
    assert "differs from --from mine.tar.gz: --force replaces it" in refused(capsys, *arguments)
    assert Path("data", small_cifar.archive).read_bytes() == b"mine, too"
    prepared(capsys, *arguments, "--force")
    assert Path("data", small_cifar.archive).read_bytes() == ARCHIVE


def test_a_full_disk_leaves_no_part(capsys, monkeypatch, small_cifar):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.os, "link", full)
    monkeypatch.setattr(archives.shutil, "copyfile", full)
    Path("mine.tar.gz").write_bytes(ARCHIVE)
    line = refused(capsys, "cifar10", "--data_dir=data", "--from=mine.tar.gz")
    assert "(No space left on device): choose a --data_dir with 0.00 GB free" in line
    assert not Path("data").exists()


MISTAKES = {
    "nothing": ([], "required: NAME"),
    "unknown": (["cifar11"], "NAME is 'cifar11' (did you mean cifar10?): choose one of cifar10"),
    "no place": (["folder"], "NAME is 'folder'"),
    "no such folder": (["folder:nowhere"], "nowhere"),
    "unknown flag": (["digits", "--frobnicate"], "--help shows what is accepted"),
    "no archive is used": (["digits", "--from=mine.tar.gz"], "--from is mine.tar.gz: digits is made from no archive"),
    "verify and force": (["digits", "--verify", "--force"], "leave --from and --force out"),
    "missing archive": (["cifar10", "--from=nowhere"], "--from nowhere cannot be read (No such file or directory)"),
    "a folder as archive": (["cifar10", "--from=there"], "--from there cannot be read (Is a directory)"),
    "cut archive": (["cifar10", "--from=cut.tar.gz"], "(100 bytes) has the md5 "),
    "no download": (["cifar10"], "CIFAR-10 is not in data"),
    "a file as data_dir": (["cifar10", "--data_dir=cut.tar.gz"], "cut.tar.gz"),
    "a file below data_dir": (["tiny_imagenet", "--from=tiny", "--data_dir=cut.tar.gz"], "choose another --data_dir"),
    "verify nothing": (["tiny_imagenet", "--verify"], "Tiny ImageNet is not in data"),
}


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(capsys, monkeypatch, small_cifar, arguments, words):
    use_small_tiny(monkeypatch)
    Path("there").mkdir()
    Path("cut.tar.gz").write_bytes(ARCHIVE[:100])
    if "--from=tiny" in arguments:
        write_tiny(Path("tiny"))
    monkeypatch.setenv("CONVMIXER_DATA_DIR", "data")
    assert words in refused(capsys, *arguments)
    assert not Path("data").exists()


@pytest.mark.parametrize("name", ["cifar10", "tiny_imagenet"])
def test_a_folder_that_may_not_be_read_is_one_line(capsys, monkeypatch, small_cifar, name):
    use_small_tiny(monkeypatch)
    stat = Path.stat

    def refuse(path: Path, **options):  # tests may run as root, whom nothing is refused
        if "data" in path.parts[:1] and len(path.parts) > 1:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert "(Permission denied)" in refused(capsys, name, "--data_dir=data")
    assert "(Permission denied)" in refused(capsys, name, "--data_dir=data", "--verify")


def test_bad_images_are_exit_code_2(capsys, monkeypatch):
    use_small_tiny(monkeypatch)
    folder = write_tiny(Path("data"))
    (folder / "train/n02/images/n02_3.JPEG").write_bytes(b"no image")
    assert main(["tiny_imagenet", "--data_dir=data", "--verify"]) == 2
    out = capsys.readouterr().out
    assert "n02_3.JPEG" in out.splitlines()[0]
    assert "1 bad of 21" in out


# As many images as take a while in chunks of one; it says when it has begun.
SLOW = """
import sys
import pytest
from tests.preparing.tiny import use_small_tiny
from convmixer_jax.commands import end_process
from convmixer_jax.prepare import main
from convmixer_jax.preparing import decoding
import time
use_small_tiny(pytest.MonkeyPatch())
decoding.CHUNK = 1
class Slow(decoding.Counting):
    def advance(self, updates):
        super().advance(updates)
        time.sleep(float(sys.argv[1]))
decoding.Counting = Slow
end_process(main(["tiny_imagenet", "--data_dir=data"]))
"""


def start(pause_s: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(pause_s)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_some() -> int:
    """Waits until some images are decoded; returns how many."""
    while True:
        time.sleep(0.05)
        try:
            done = json.loads(Path("data/tiny_imagenet.prepared.part/prepared.json").read_text())["splits"]["train"]
        except OSError:
            continue
        if done["done"] >= 3:
            return done["done"]


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_stopped_one_goes_on_when_run_again(capsys, monkeypatch, number, code):
    write_tiny(Path("data"))
    process = start(0.2)
    before = wait_for_some()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert number == signal.SIGKILL or err.endswith(f"{number.name} received: stopped; run again to go on\n")
    record = json.loads(Path("data/tiny_imagenet.prepared.part/prepared.json").read_text())
    assert record["splits"]["train"]["done"] >= before
    use_small_tiny(monkeypatch)
    told = prepared(capsys, "tiny_imagenet", "--data_dir=data")
    assert told.endswith("tiny_imagenet is ready in data/tiny_imagenet.prepared\n")
    left = sorted(path.name for path in Path("data").iterdir())
    assert left == ["tiny-imagenet-200", "tiny_imagenet.prepared"]


@pytest.mark.slow
def test_of_two_at_once_one_works_and_the_other_finds_it_done():
    write_tiny(Path("data"))
    told = [process.communicate(timeout=90) for process in [start(0.2), start(0.2)]]
    assert sorted(out.splitlines()[-1].removeprefix("tiny_imagenet is ready in data/") for out, _ in told) == [
        "tiny_imagenet.prepared",
        "tiny_imagenet.prepared already: nothing to do",
    ]
    assert sum("waiting for another process" in err for _, err in told) == 1
