"""What is made of the times of the input's parts: ratio, wait, table. The sides' processes are pretended."""

import json
from pathlib import Path
from typing import Any

import pytest

from convmixer_jax.benchmarks.input_sides import build_input, build_memory
from convmixer_jax.benchmarks.input_speed import AUGMENTED, PARTS, UPDATES, input_table, measure_input, photographs
from convmixer_jax.benchmarks.loader_side import build_loader
from convmixer_jax.benchmarks.ours import FixedBatch
from convmixer_jax.benchmarks.speed import Settings
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import Pretended, pretending, small_config, squeezed

WHERE = {"versions": {"jax": "1", "flax": "2", "python": "3"}, "devices": ["cpu"]}
MEMORY = {"bytes_per_batch": -12.3, "resident_bytes": 3 * 10**9, "batches": 20_000}
# By name of the side: seconds of a call of 100 images, facts. What is not here is not ready in time.
SIDES: dict[str, tuple[float, dict[str, Any]]] = {
    "input": (0.010, {"provenance": WHERE, "path": "stream", "crop_on_host": True}),
    "  read": (0.001, {"ready": True}),
    AUGMENTED: (0.020, {"ready": True}),
    UPDATES: (0.100, {"input_wait": 0.0314}),
    "DataLoader x3": (0.050, {"version": "9.9"}),
    "memory": (0.010, {"memory": MEMORY}),
}


class OfTable(Pretended):
    """Behaves as its row of SIDES says."""

    def behaviour(self):
        if self.name not in SIDES:
            return None
        seconds, facts = SIDES[self.name]
        return seconds, 100, dict(facts)


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    with pretending(monkeypatch, OfTable):
        yield


def settings(against: str | None) -> Settings:
    return Settings(3, 0.5, "default", FixedBatch(0, 0), against=against, modes=(), ready_seconds=60)


def test_ours_is_put_over_the_loader(tmp_path):
    measured = measure_input(small_config(), settings("torch"), tmp_path, workers=3, batches=20_000)
    json.dumps(measured)
    assert measured["input_images_per_sec"] == pytest.approx(10_000)
    assert measured["over_loader"] == pytest.approx(2.5)  # 50 ms over 20 ms
    assert measured["input_wait"] == 0.0314
    assert measured["memory"] == MEMORY
    assert [row["name"] for row in measured["rows"]] == ["input", *PARTS, AUGMENTED, "DataLoader x3"]
    builds = {worker.name: (worker.build, worker.arguments[1:]) for worker in Pretended.made}
    assert builds["input"] == (build_input, (tmp_path,))
    assert builds["DataLoader x3"] == (build_loader, (tmp_path, 3))
    assert builds["memory"] == (build_memory, (tmp_path, 20_000))
    assert [worker.calls for worker in Pretended.made if worker.name == "memory"] == [0]

    head, first, *_, path, wait, ratio, memory, machine, how = map(squeezed, input_table(measured))
    assert head.split()[:3] == ["input", "images/s", "quartiles"]
    assert first == "input 10,000 10,000 - 10,000 - - - 2.00 GB -"
    assert "read, decoded not measured: not ready after 60 s" in map(squeezed, input_table(measured))
    assert path == "config.input is stream, random_resized_crop on the host; batches of 6"
    assert wait == "updates wait for their input 3.1% of the time"
    assert ratio == "input, augmented, over PyTorch's DataLoader with Pillow: 2.50"
    assert memory == "host memory: slope -12 bytes a batch over 20,000 batches; 3.00 GB in the end"
    assert "torch 9.9" in machine
    assert how.startswith("3 calls of each in turn")


def test_what_was_not_measured_is_not_told(monkeypatch, tmp_path):
    monkeypatch.delitem(SIDES, UPDATES)
    monkeypatch.setitem(SIDES, "input", (0.010, SIDES["input"][1] | {"path": "resident", "crop_on_host": False}))
    measured = measure_input(small_config(), settings(None), tmp_path, workers=3, batches=0)
    assert (measured["input_wait"], measured["over_loader"]) == (None, None)
    lines = input_table(measured)
    assert len(lines) == 1 + 1 + len(PARTS) + 1 + 2
    assert lines[-3] == "config.input is resident, all augmentation on the devices; batches of 6"


def test_what_the_loader_cannot_do_is_told_before_anything_is_built(tmp_path):
    config = small_config()
    config.augment.order = ("random_erasing",)
    with pytest.raises(UserError, match="config.augment.order has random_erasing"):
        measure_input(config, settings("torch"), tmp_path, workers=2, batches=0)
    assert Pretended.made == []


def test_photographs_are_there_while_they_are_needed():
    config = small_config()
    with photographs(config, 0) as same:
        assert same is config
    config.val_fraction = 0.1
    with photographs(config, 3) as changed:
        kind, _, place = changed.dataset.partition(":")
        assert kind == "folder"
        assert len(list(Path(place, "train").rglob("*.jpg"))) == 3
        assert (changed.val_fraction, changed.train_examples) == (0.0, 0)
    assert not Path(place).exists()
    assert config.dataset == "cifar10"
