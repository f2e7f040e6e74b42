"""A run on a folder of one's own images, from the first update to pictures of its mistakes."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax import predict, visualize
from convmixer_jax.main import main
from tests.commands import DIGITS, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]  # two updates, and three commands

CLASSES = ("blue", "green", "red")
ARGUMENTS = [
    *DIGITS,
    *SMALL,
    "--workdir=run",
    "--config.dataset=folder:photos",
    "--config.image_size=8",
    "--config.batch_size=4",
    "--config.epochs=1",
]


@pytest.fixture
def photos(tmp_path, elsewhere, monkeypatch) -> Path:
    """Three training images of each class, and two for the test, of other sizes than the model's."""
    for module in (predict, visualize):
        monkeypatch.setattr(module, "start_jax", lambda compilation_cache: None)  # it would move this process's cache
    draw = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for channel, name in enumerate(reversed(CLASSES)):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 100, (12 + number, 16, 3), np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(tmp_path / f"photos/{part}/{name}/{number}.jpg")
    return tmp_path / "photos"


def evaluated(capsys) -> dict:
    sys.modules.pop("config_config", None)  # what `elsewhere` does before the first command
    assert main(["main", *ARGUMENTS, "--mode=eval"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_on_a_folder(photos, capsys):
    assert main(["main", *ARGUMENTS]) == 0
    record, result = (json.loads(Path("run", name).read_text()) for name in ("config.json", "result.json"))
    assert record["dataset"]["class_names"] == list(CLASSES)
    assert record["dataset"]["num_examples"] == {"train": 9, "test": 6}
    assert (result["step"], result["n"]) == (2, 6)

    shutil.rmtree(photos / "train")
    capsys.readouterr()
    assert {name: evaluated(capsys)[name] for name in ("n", "top1", "loss")} == {
        name: result[name] for name in ("n", "top1", "loss")
    }
    assert visualize.main(["--workdir=run", "--what=confusion", "--out=pictures"]) == 0
    assert len(list(Path("pictures").iterdir())) > 0
    shutil.copy(photos / "val/red/0.jpg", "red.jpg")
    shutil.rmtree(photos)
    capsys.readouterr()
    assert predict.main(["--workdir=run", "red.jpg", "--top=3"]) == 0
    assert sorted(line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]) == list(CLASSES)
