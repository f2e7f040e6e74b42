"""The command tells what it measures, and the Pillow side of `augment` does what it is put beside."""

import json
import re
from typing import Any

import jax
import numpy as np
import pytest

from convmixer_jax import benchmark
from convmixer_jax.augment.operations import OPERATIONS
from convmixer_jax.benchmarks import augmentation, input_speed, scaling, speed, startup
from convmixer_jax.benchmarks.augmentation import operation_values, photographs, rows_of
from convmixer_jax.benchmarks.pillow_pool import PillowPool, draw_box, has_counterpart
from convmixer_jax.config import get_base
from convmixer_jax.errors import UserError
from convmixer_jax.training.assembly import assemble
from tests.commands import DIGITS, ROOT, SMALL

FAST = ["--config", str(ROOT / "configs/cifar10_fast.py")]


def test_photographs_are_real_and_enough():
    found = photographs(600, 32, 32)
    assert (found.shape, found.dtype) == ((600, 32, 32, 3), np.uint8)
    assert len(np.unique(found[:500], axis=0)) > 450
    assert photographs(3, 224, 200).shape == (3, 224, 200, 3)


def test_every_operation_has_a_value():
    assert set(operation_values(32, 32)) == set(OPERATIONS)


def test_the_pool_does_what_the_recipe_says():
    images = photographs(10, 32, 32)
    crop = ("pad_and_crop", {"pixels": 2, "mode": "zero"})
    resized = ("random_resized_crop", {"scale": (0.5, 1.0), "ratio": (0.75, 1.3), "interpolation": "random"})
    jitter = ("colour_jitter", {"brightness": 0.2, "contrast": 0.0, "saturation": 0.3, "hue": 0.0, "probability": 1.0})
    with PillowPool(images, workers=2) as pool:
        mirrored = pool.run([("horizontal_flip", {"probability": 1.0})])
        np.testing.assert_array_equal(mirrored, images[:, :, ::-1].astype(np.float32) / 255)
        inverted = pool.run([("op:invert", {"value": 0.0})])
        np.testing.assert_array_equal(inverted, (255 - images).astype(np.float32) / 255)
        changed = pool.run([crop, resized, jitter])
        assert changed.shape == images.shape
        assert (np.abs(changed * 255 - images).max(axis=(1, 2, 3)) > 1).all()
        np.testing.assert_array_equal(changed, pool.run([crop, resized, jitter]))
        assert (pool.run([crop], seed=1) != pool.run([crop], seed=2)).any()
        normalised = pool.run([], statistics=((0.5, 0.4, 0.3), (0.5, 0.25, 0.2)))
        expected = (images / 255 - (0.5, 0.4, 0.3)) / (0.5, 0.25, 0.2)
        np.testing.assert_allclose(normalised, expected, atol=1e-6)


def test_pillows_boxes_are_torchvisions():
    rng = np.random.default_rng(0)
    # Of 40 x 20 pixels, the whole area as a square does not fit: the largest square in the centre.
    assert draw_box(rng, 40, 20, (1.0, 1.0), (1.0, 1.0)) == (10, 0, 30, 20)
    assert draw_box(rng, 20, 40, (1.0, 1.0), (1.0, 1.0)) == (0, 10, 20, 30)
    # Twice the area never fits; the image's own ratio is allowed.
    assert draw_box(rng, 40, 20, (2.0, 2.0), (0.5, 2.0)) == (0, 0, 40, 20)
    # Where about half of the tries do not fit, none of them is cut to size, which would leave less than half the area.
    boxes = np.array([draw_box(rng, 32, 32, (0.5, 1.0), (0.5, 2.0)) for _ in range(300)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (boxes >= 0).all()
    assert (boxes <= 32).all()
    assert sides.prod(axis=1).min() >= 0.48 * 1024  # but for the rounding of the sides
    assert len(np.unique(boxes[:, 0])) > 5


def test_a_crop_sees_nothing_beside_its_box():
    places: dict[str, Any] = {"scale": (0.25, 0.25), "ratio": (1.0, 1.0), "interpolation": "bicubic"}
    # As the pool's worker draws it for its first image.
    left, top, right, bottom = draw_box(np.random.default_rng([0, 0]), 32, 32, places["scale"], places["ratio"])
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[:, top:bottom, left:right] = 255
    with PillowPool(images, workers=1) as pool:
        assert (pool.run([("random_resized_crop", places)]) == 1).all()


@pytest.mark.parametrize("name, settings, expected", [
    ("rand_augment", {"tables": "torchvision", "interpolation": "default", "fill": ()}, True),
    ("rand_augment", {"tables": "torchvision", "interpolation": "nearest", "fill": (0, 0, 0)}, True),
    ("rand_augment", {"tables": "torchvision", "interpolation": "bilinear", "fill": ()}, False),
    ("rand_augment", {"tables": "torchvision", "interpolation": "default", "fill": (0, 9, 0)}, False),
    ("rand_augment", {"tables": "timm", "interpolation": "nearest", "fill": ()}, False),
    ("pad_and_crop", {"mode": "zero"}, True),
    ("pad_and_crop", {"mode": "reflect"}, False),
    ("random_resized_crop", {"interpolation": "bicubic"}, True),
    ("colour_jitter", {"hue": 0.0}, True),
    ("colour_jitter", {"hue": 0.1}, False),
    ("random_erasing", {}, False),
])  # fmt: skip
def test_what_has_no_counterpart_is_not_compared(name, settings, expected):
    assert has_counterpart(name, settings) is expected


@pytest.mark.slow
def test_the_table(capsys, elsewhere, monkeypatch, quick_compilation):
    monkeypatch.setattr(augmentation, "operation_values", lambda *sides: {"invert": 0.0})
    small = ["--batch", "8", "--workers", "1", "--config.batch_size=8", "--config.compilation_cache=False", "--json"]
    assert benchmark.main(["augment", *FAST, *small, "--config.mixing.mixup_alpha=1.0", "--config.devices=1"]) == 0
    *table, closing, last = capsys.readouterr().out.splitlines()
    assert closing.startswith("Single operations do not add up")
    rows = json.loads(last)["rows"]
    names = [row["name"].strip() for row in rows]
    mixed = "all, normalised and mixed"
    assert names == ["all, normalised", mixed, "horizontal_flip", "rand_augment", "invert"]
    assert len(table) == 1 + len(rows)
    assert table[0].split() == ["images/s", "ours", "quartiles", "Pillow", "x1", "quartiles", "ratio"]
    for line, row in zip(table[1:], rows, strict=True):
        assert line.startswith(row["name"])
        low, high = row["ours"]["quartiles"]
        assert 0 < low <= row["ours"]["median"] <= high
        assert f"{row['ours']['median']:,.0f}" in line
        assert f"{low:,.0f} - {high:,.0f}" in line
        if row["name"] == mixed:
            assert row["pillow"] is row["ratio"] is None
            assert line.split()[-3:] == ["-", "-", "-"]
        else:
            assert row["ratio"] == pytest.approx(row["ours"]["median"] / row["pillow"]["median"])


class FakePool(PillowPool):
    """One that is never run."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_what_is_timed_is_worked_out_from_arguments(monkeypatch, alpha):
    # What follows from constants alone is computed while the program is compiled, and would cost nothing.
    def count_arguments(function, *arguments):
        main = next(line for line in jax.jit(function).lower(*arguments).as_text().splitlines() if "@main(" in line)
        return len(re.findall(r"%arg\d+:", main))  # those that are used

    monkeypatch.setattr(augmentation, "on_device", count_arguments)
    config = get_base()
    config.devices, config.model.dim, config.model.depth = 1, 4, 1
    config.augment.order, config.mixing.mixup_alpha = ("horizontal_flip",), alpha
    counts = {name: ours for name, (ours, _) in rows_of(assemble(config), photographs(4, 32, 32), FakePool()).items()}
    assert counts.pop("horizontal_flip") == counts.pop("all, normalised") == 2  # key, images
    # seed, step, images, labels; there only where the recipe mixes
    assert counts.pop("all, normalised and mixed", None) == (4 if alpha else None)
    assert {name.strip() for name in counts} == set(OPERATIONS)
    assert (counts["  rotate"], counts["  cutout"], counts["  brightness"]) == (3, 3, 3)  # images, kind, value


def test_mistakes_are_told_in_one_line(capsys, elsewhere):
    digits = ["--config", str(ROOT / "configs/digits.py")]
    for arguments, told in (
        (["augment", *digits], "config.dataset is 'digits'"),
        (["augment"], "--config is missing"),
        (["augment", *FAST, "--batch", "0"], "'0' is no positive whole number"),
        (["nosuch", *FAST], "invalid choice: 'nosuch'"),
        (["step", *FAST, "--against", "keras"], "invalid choice: 'keras'"),
        (["step", *FAST, "--against", "torch", "--modes", "eager"], "--modes is 'eager'"),
        (["train", *FAST, "--against", "torch"], "against"),
        (["train", *FAST, "--call_seconds", "-1"], "'-1' is no positive number of seconds"),
        (["scaling", *FAST, "--plot", "a.gif"], "--plot a.gif"),
        (["startup", *FAST, "--config.batch_size=0"], "config.batch_size is 0"),
        ([], "required: benchmark"),
    ):
        assert benchmark.main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert told in err


@pytest.mark.slow
def test_an_update_beside_pytorchs(capsys, elsewhere, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # of the processes: nothing here is about speed
    small = [*DIGITS, *SMALL, "--config.batch_size=4", "--repetitions=2", "--call_seconds=0.01", "--image_size=6"]
    assert benchmark.main(["step", *small, "--against", "torch", "--modes", "eager-nhwc-float32", "--json"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    measured = json.loads(last)
    ours, theirs = measured["rows"]
    assert measured["step_images_per_sec"] == ours["images_per_sec"] > 0
    ratio = ours["images_per_sec"] / theirs["images_per_sec"]
    assert measured["against"] == {"fastest": "torch eager-nhwc-float32", "ratio": pytest.approx(ratio)}
    # 36 patches of one pixel. Stem: 36 x 4. Block: 36 x (9 x 4 + 16). Classifier: 40. The stem's image has no gradient.
    assert measured["flops_per_image"] == 2 * (3 * (36 * 4 + 36 * 52 + 40) - 36 * 4)
    assert 0 < ours["share_of_product"] < 1
    for row in (ours, theirs):
        assert 1e7 < row["host_peak_bytes"] < 2e9
    assert measured["config"]["batch_size"] == 4
    assert measured["machine"]["cores"] >= 1
    assert table[1].startswith("ours ")
    assert table[2].startswith("torch eager-nhwc-float32 ")


@pytest.mark.parametrize("name", benchmark.BENCHMARKS)
def test_every_benchmark_tells_its_flags(name, capsys):
    with pytest.raises(SystemExit) as done:
        benchmark.main([name, "--help"])
    assert done.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["step", "train", "eval"])
def test_programs_are_measured_by_their_names(name, capsys, elsewhere, monkeypatch):
    def measure(config, settings):
        raise UserError(f"{name} {config.dataset} {settings.repetitions} {settings.call_seconds} {settings.allocator}")

    monkeypatch.setattr(speed, f"measure_{name}", measure)
    assert benchmark.main([name, *DIGITS, "--call_seconds=0.25", "--allocator=default"]) == 2
    assert capsys.readouterr().err == f"error: {name} digits 7 0.25 default\n"


def test_the_input_is_measured_as_asked(capsys, elsewhere, monkeypatch, tmp_path):
    def measure(config, settings, data_dir, **more):
        raise UserError(f"{config.dataset} {settings.against} {settings.call_seconds:g} {data_dir.name} {more}")

    monkeypatch.setattr(input_speed, "measure_input", measure)
    flags = ["--against", "torch", "--workers=3", "--batches=7", "--data_dir", str(tmp_path / "there")]
    assert benchmark.main(["input", *DIGITS, *flags]) == 2
    assert capsys.readouterr().err == "error: digits torch 2 there {'workers': 3, 'batches': 7}\n"
    assert benchmark.main(["input", *DIGITS, "--photographs=2"]) == 2
    assert capsys.readouterr().err.startswith("error: folder:")


def test_start_up_is_told(capsys, elsewhere, monkeypatch):
    commands = []
    monkeypatch.setattr(startup, "start_once", lambda command, variables: commands.append(command) or {"all": 1.5})
    assert benchmark.main(["startup", *DIGITS, "--config.batch_size=32", "--repetitions=1", "--json"]) == 0
    assert commands[0][3:6] == [*DIGITS, "--config.batch_size=32"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["warm"]["all"]["median"] == 1.5


def test_scaling_is_told_and_drawn(tmp_path, capsys, elsewhere, monkeypatch):
    rates = {"images_per_sec": 10.0, "quartiles": (9.0, 11.0), "flops_per_image": 1e9}
    monkeypatch.setattr(scaling, "measure_point", lambda config, settings: dict(rates))
    axes = ["--batch_size", "8", "16", "--depth", "1", "--kernel_size", "3"]
    assert benchmark.main(["scaling", *DIGITS, *axes, "--plot", str(tmp_path / "a.pdf"), "--json"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [row["value"] for row in json.loads(last)["rows"]] == [8, 16, 1, 3]
    assert len(table) == 1 + 4 + 1
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_that_fails_loses_no_measurement(tmp_path, capsys, elsewhere, monkeypatch):
    def measure(config, settings):
        (tmp_path / "a.png").mkdir(exist_ok=True)  # meanwhile
        return {"images_per_sec": 10.0, "quartiles": (9.0, 11.0), "flops_per_image": 1e9}

    monkeypatch.setattr(scaling, "measure_point", measure)
    axes = ["--batch_size", "8", "--depth", "1", "--kernel_size", "3"]
    assert benchmark.main(["scaling", *DIGITS, *axes, "--plot", str(tmp_path / "a.png"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["rows"][0]["images_per_sec"] == 10
    assert err.startswith(f"error: --plot {tmp_path}/a.png: it cannot be written (Is a directory)")
    assert err.count("\n") == 1
