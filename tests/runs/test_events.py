"""TensorBoard's own reader finds in an event file what was written, and the writer needs no TensorFlow."""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.runs.events import EventsFile

ROOT = Path(__file__).parents[2]

# In a process of its own: TensorBoard's reader imports TensorFlow wherever it is installed, unless it is told that
# there is none.
READ = """
import base64, json, sys
sys.modules["tensorflow"] = None
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0}).Reload()
tags = events.Tags()
print(json.dumps({
    "scalars": {tag: [[e.step, e.value, e.wall_time] for e in events.Scalars(tag)] for tag in tags["scalars"]},
    "images": {tag: [[e.step, e.width, e.height, base64.b64encode(e.encoded_image_string).decode()]
                     for e in events.Images(tag)] for tag in tags["images"]},
    "version": events.file_version,
    "first": events.FirstEventTimestamp(),
}))
"""


def read(folder: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PICTURE = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "deep" / "tensorboard"
    events = EventsFile(folder)
    events.write_scalars({"train/loss": 2.5, "train/top1": 0.125}, step=50)
    events.write_scalars({"train/loss": float("nan"), "eval/n": 10_000}, step=100)
    events.write_image("train/augmented", PICTURE, step=0)
    events.close()
    return folder


@pytest.fixture(scope="module")
def events(written):
    return read(written)


def test_scalars_come_back(events):
    scalars = {
        tag: [(step, value) for step, value, _ in points if value == value] for tag, points in events["scalars"].items()
    }
    assert scalars == {
        "train/loss": [(50, 2.5)],  # and NaN at 100, which is left out above: it equals nothing
        "train/top1": [(50, 0.125)],
        "eval/n": [(100, 10_000)],
    }
    assert [step for step, _, _ in events["scalars"]["train/loss"]] == [50, 100]


def test_the_time_is_that_of_the_day(events):
    times = [when for points in events["scalars"].values() for _, _, when in points]
    assert time.time() - 600 < events["first"] <= min(times)
    assert max(times) <= time.time()
    assert events["version"] == 2


def test_the_picture_comes_back_as_png(events, tmp_path):
    [[step, width, height, encoded]] = events["images"]["train/augmented"]
    assert (step, width, height) == (0, 4, 6)
    (tmp_path / "x.png").write_bytes(base64.b64decode(encoded))
    picture = Image.open(tmp_path / "x.png")
    assert picture.format == "PNG"
    np.testing.assert_array_equal(np.asarray(picture), PICTURE, strict=True)


def test_the_name_is_one_that_tensorboard_looks_for(written):
    [path] = written.iterdir()
    assert path.name.startswith("events.out.tfevents.")


def test_what_was_flushed_is_there_before_the_file_is_closed(tmp_path):
    events = EventsFile(tmp_path)
    [path] = tmp_path.iterdir()
    events.flush()
    size = path.stat().st_size
    events.write_scalars({"train/loss": 1.0}, step=1)
    events.flush()
    assert path.stat().st_size > size > 0
    events.close()


def test_writing_imports_no_tensorflow(tmp_path):
    source = (
        "import pathlib, sys; from convmixer_jax.runs.events import EventsFile\n"
        "EventsFile(pathlib.Path(sys.argv[1])).write_scalars({'x': 1.0}, step=1)\n"
        "print([name for name in ('tensorflow', 'jax') if name in sys.modules])"
    )
    command = [sys.executable, "-c", source, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
