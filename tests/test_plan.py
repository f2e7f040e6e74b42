"""What it prints of devices here, and of chips that eight CPU devices stand in for; mistakes in one line."""

import dataclasses
import importlib.util
import json

import jax
import pytest

from convmixer_jax import plan
from convmixer_jax.planning import compiled
from convmixer_jax.planning.chips import CHIPS
from convmixer_jax.training.mesh import make_mesh
from tests.benchmarks.sides import squeezed
from tests.commands import DIGITS

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")

TINY = [
    "--config.model.dim=4",
    "--config.model.depth=1",
    "--config.compilation_cache=False",
    "--config.augment.order=()",
]


@pytest.fixture
def eight_chips(monkeypatch):
    """CPU devices in place of a TPU's: the path from the command to the lines is the same."""
    monkeypatch.setattr(compiled, "absent_mesh", lambda topology, fsdp_devices: make_mesh(8, fsdp_devices))


def told(capsys, *arguments: str) -> tuple[list[str], dict]:
    """Returns the lines of a plan and its object."""
    assert plan.main([*DIGITS, *TINY, *arguments, "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return [squeezed(line) for line in lines], json.loads(last)


@pytest.mark.slow
def test_absent_chips_are_planned_for(capsys, eight_chips):
    lines, record = told(capsys, "--topology=v5e:2x4", "--batch_size=64", "--efficiency=0.25")
    assert (record["chips"], record["request"]["per_device"], record["request"]["fits"]) == (8, 8, True)
    assert "64 images, 8 on each of 8 x cpu (v5e:2x4, compiled for and not run)" in lines[0]
    assert lines[1].startswith("does it fit? yes; memory on each device: 0.00 GB of 16.91 GB")
    request = record["request"]
    assert request["seconds"] == pytest.approx(4 * request["times"]["bound"])
    assert request["hours"] == pytest.approx(20 * (1437 // 64) * request["seconds"] / 3600)
    assert set(request["sent"]) == {"all-reduce"}
    share, batch = record["constant_share"], record["constant_batch"]
    assert [(table["per_device"], table["flags"]) for table in share] == [(8, None)]
    assert [row["batch_size"] for row in share[0]["rows"] if "batch_size" in row] == [64, 128, 256, 512, 1024]
    assert [row.get("per_device") for row in batch] == [8, 4, 2, 1, None, None]
    assert "must be a multiple of the 128 devices" in batch[4]["note"]
    assert lines[-1].startswith("memory: 17.18 GB published, 16.91 GB of it for a program")


@pytest.mark.slow
def test_a_recipe_whose_batch_the_slice_cannot_share_is_planned_with_another(capsys, eight_chips, monkeypatch):
    # What lies between 16 and 8 images on each of the chips, of 132 over eight of them.
    monkeypatch.setitem(CHIPS, "v5e", dataclasses.replace(CHIPS["v5e"], usable_bytes=190_000))
    lines, record = told(capsys, "--topology=v5e:2x4", "--config.batch_size=132", "--config.input=stream")
    assert lines[1] == (
        "config.batch_size is 132, which 8 devices cannot share: planned with 16 images on each instead; --batch_size "
        "takes another"
    )
    assert (record["batch_size"], record["request"]["batch_size"], record["request"]["fits"]) == (132, 128, False)
    fitting = [way for way in record["ways"] if way["fits"]]
    assert {way["flags"] for way in fitting} == {"config.batch_size=64", "config.accumulate_steps=2"}
    assert fitting[0]["images_per_sec"] >= fitting[1]["images_per_sec"]
    assert f"proposed: --{fitting[0]['flags']}" in lines
    headings = [line for line in lines if line.endswith("whatever the slice:")]
    assert headings == [
        "8 images on each device, whatever the slice:",
        "16 images on each device with --config.accumulate_steps=2, whatever the slice:",
        "a batch of 132, whatever the slice:",
    ]
    assert all("must be a multiple of" in row["note"] for row in record["constant_batch"])


def test_the_images_of_a_plan_are_as_large_as_those_of_the_run(capsys):
    assert plan.main([*DIGITS, *TINY, "--config.image_size=16"]) == 2
    assert "error: config.image_size is 16: the images of digits are 8x8 pixels" in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_fit_comes_with_what_does(capsys, monkeypatch):
    # Of this machine's memory a test takes what lies between the whole batch and the half.
    monkeypatch.setattr(compiled, "memory_limit", lambda devices: 280_000)
    lines, record = told(capsys, "--config.devices=1", "--batch_size=64", "--config.input=stream", "--measure")
    assert not record["request"]["fits"]
    assert record["request"]["memory"]["total"] > 280_000
    fitting = [way for way in record["ways"] if way["fits"]]
    assert fitting
    assert all(way["memory"]["total"] <= 280_000 for way in fitting)
    assert lines[1].startswith("does it fit? no; ")
    assert any(line.startswith(f"--{fitting[0]['flags']}: compiled, fits") for line in lines)
    assert fitting[0]["images_per_sec"] == pytest.approx(fitting[0]["batch_size"] / fitting[0]["seconds"])
    assert any(line.startswith("measured: ") for line in lines)


@pytest.mark.parametrize("arguments, message", [
    (["--topology="], "--topology is '': choose one of v2, v3, v4, v5e"),
    (["--topology=v9:2x2"], "--topology is 'v9' (did you mean v4?): choose one of v2, v3, v4, v5e"),
    (["--topology=v5e:2x4", "--batch_size=60"], "config.batch_size is 60: it must be a multiple of the 8 devices"),
    (["--topology=v5e:2x4", "--config.devices=4"], "config.devices is 4: v5e:2x4 has 8; 0 takes all of them"),
    (["--topology=v5e:2x4", "--measure"], "--measure: nothing can be run on chips that are absent"),
    (["--topology=v5e:2x4", "--efficiency=2"], "argument --efficiency: '2' is no number above 0, up to 1"),
    (["--batch_size=0"], "argument --batch_size: '0' is no positive whole number"),
    (["--batch_size=4096"], "config.batch_size is 4096: the training split has 1437 examples"),
    (["--config.model.kernel_size=99"], "config.model.kernel_size is 99"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(capsys, eight_chips, arguments, message):
    assert plan.main([*DIGITS, *TINY, *arguments]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: {message}")


def test_a_missing_compiler_is_told(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plan.main([*DIGITS, "--topology=v5e:2x4"]) == 2
    error = capsys.readouterr().err
    assert error == 'error: the TPU compiler is not installed: pip install "jax[tpu]", which needs no TPU\n'


def test_refused_compilations_that_are_not_about_memory_are_told(capsys, monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nto compile")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    assert plan.main([*DIGITS, *TINY]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "error: config.model.ops is 'auto': it cannot be compiled (INTERNAL: Mosaic failed to compile)"
