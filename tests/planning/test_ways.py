"""Proposals are compiled: one that was guessed wrong is taken further or told as it is; slices scale what was compiled.

Compilations are pretended, with a need that grows with the examples in a pass.
"""

import dataclasses

import pytest

from convmixer_jax.planning import slices, ways
from convmixer_jax.planning.chips import CHIPS
from convmixer_jax.planning.compiled import Outcome, Place, Work
from convmixer_jax.planning.slices import Recipe, common_config, constant_batch, constant_share
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.capacity import Need
from convmixer_jax.training.program import memory_request
from tests.training.digits import digits_config

LIMIT = 1000


@pytest.fixture(scope="module")
def experiment():
    return assemble(digits_config(8, 3, order=(), batch_size=512))


@pytest.fixture
def pretended(experiment, monkeypatch):
    """Returns (place, compile): 100 bytes are held; `compile` takes 20 for each example in a pass, and lists what."""
    asked: list[tuple[int, int]] = []

    def compile_update(place: Place, config) -> Outcome:
        changed = dataclasses.replace(experiment, config=config)
        request = dataclasses.replace(memory_request(changed), data_bytes=0, params_bytes=10)
        asked.append((config.batch_size, config.accumulate_steps))
        need = Need(held=100, temporary=20 * request.at_a_time + 100)
        work = Work(1e12 * request.per_device, traffic=0, cycles=0, pallas_flops=0, sent=())
        return Outcome(changed, request, need, need.total <= LIMIT, work, 0.0, None)

    for module in (ways, slices):
        monkeypatch.setattr(module, "compile_update", compile_update)
    return Place(lambda config: experiment, LIMIT, 8), compile_update, asked


def test_ways_are_compiled_and_taken_further_where_the_guess_was_wrong(pretended, experiment):
    place, compile_update, asked = pretended
    first = compile_update(place, experiment.config)
    assert (first.per_device, first.need.total, first.fits) == (64, 1480, False)
    asked.clear()
    told: list[str] = []
    found = ways.verified_ways(place, experiment.config, first, told.append)
    assert [(way.flags, way.outcome.need.total) for way in found] == [
        ("config.batch_size=256", 840),
        ("config.accumulate_steps=2", 840),
    ]
    assert all(way.outcome.fits for way in found)
    assert asked == [(256, 1), (512, 2)]
    assert told == [f"compiling with {way.flags}" for way in found]


def test_a_guess_that_does_not_fit_is_halved_again(pretended, experiment, monkeypatch):
    place, compile_update, asked = pretended
    first = compile_update(place, experiment.config)
    guess = dataclasses.replace(first, need=Need(held=100, temporary=1000))  # as if it grew less with the examples
    asked.clear()
    monkeypatch.setattr(
        ways,
        "compile_update",
        lambda place, config: dataclasses.replace(
            compile_update(place, config), fits=config.batch_size < 256 and config.accumulate_steps == 1
        ),
    )
    found = ways.verified_ways(place, experiment.config, guess, lambda line: None)
    assert [(way.flags, way.outcome.fits) for way in found] == [
        ("config.batch_size=128", True),
        ("config.accumulate_steps=8", False),  # the last of three attempts
    ]
    assert asked == [(256, 1), (128, 1), (512, 2), (512, 4), (512, 8)]


@pytest.mark.parametrize("flags, fields", [
    ("config.batch_size=8", {"batch_size": 8}),
    ("config.model.remat=True", {"model.remat": True}),
    ("config.input=stream with config.accumulate_steps=4", {"input": "stream", "accumulate_steps": 4}),
])  # fmt: skip
def test_flags_become_fields(experiment, flags, fields):
    changed = ways.with_flags(experiment.config, flags)
    for name, value in fields.items():
        group, _, field = name.rpartition(".")
        assert (changed[group] if group else changed)[field] == value
    assert experiment.config.batch_size == 512


RECIPE = Recipe(CHIPS["v5e"], cores=1, epochs=2, train_examples=4096, efficiency=0.5)


def test_a_constant_share_scales_one_program(pretended, experiment):
    place, compile_update, _ = pretended
    config = ways.with_flags(experiment.config, "config.batch_size=256")
    eight, sixteen, *rest = constant_share(RECIPE, compile_update(place, config))
    # 32 TFLOP on each chip, at half of 197 TFLOP/s; 16 and 8 updates an epoch.
    assert eight["seconds"] == sixteen["seconds"] == pytest.approx(32 / 197 * 2)
    assert (eight["batch_size"], sixteen["batch_size"]) == (256, 512)
    assert (eight["scaled"], sixteen["scaled"]) == (False, True)
    assert eight["hours"] == pytest.approx(2 * 16 * 64 / 197 / 3600)
    assert sixteen["images_per_sec"] == 2 * eight["images_per_sec"]
    assert rest[-1]["note"] == "a batch of 8192: there are 4096 examples"


def test_a_constant_batch_compiles_what_is_needed_and_says_what_does_not_fit(pretended, experiment):
    place, compile_update, asked = pretended
    config = experiment.config
    first = compile_update(place, config)
    half = compile_update(place, ways.with_flags(config, "config.batch_size=256"))
    asked.clear()
    rows = constant_batch(RECIPE, place, config, [first, half], lambda line: None)
    assert asked == [(16, 1)]  # 2 on each of 8, as on each of 256 chips
    assert rows[0]["note"] == "does not fit: 64 images on a device need 0.00 GB"
    assert [row["per_device"] for row in rows[1:]] == [32, 16, 8, 4, 2]
    assert [row["bytes"] for row in rows[1:]] == [840, 520, 360, 280, 240]
    assert [row["scaled"] for row in rows[1:]] == [True] * 5
    for row in rows[1:]:
        assert row["seconds"] == pytest.approx(2 * row["per_device"] / 197)


def test_a_batch_that_chips_cannot_share_is_told(pretended, experiment):
    place, compile_update, _ = pretended
    config = ways.with_flags(experiment.config, "config.batch_size=192")
    rows = constant_batch(RECIPE, place, config, [compile_update(place, config)], lambda line: None)
    notes = [row.get("note") for row in rows]
    assert notes[:4] == [None] * 4
    assert all("config.batch_size is 192: it must be a multiple of the" in note for note in notes[4:])


def test_the_largest_share_that_may_fit_is_compiled_too(pretended, experiment):
    place, compile_update, asked = pretended
    # 80 on each of 8 chips, and so on; of the shares that are known, 64 does not fit and 32 does.
    config = ways.with_flags(experiment.config, "config.batch_size=640")
    known = [compile_update(place, ways.with_flags(config, f"config.batch_size={8 * share}")) for share in (64, 32)]
    asked.clear()
    rows = constant_batch(RECIPE, place, config, known, lambda line: None)
    assert asked == [(8 * 5, 1), (8 * 40, 1)]
    assert rows[0]["note"].startswith("does not fit: 64 images")
    assert [row["per_device"] for row in rows[1:5]] == [40, 20, 10, 5]
    assert [row["bytes"] for row in rows[1:5]] == [1000, 600, 400, 300]
    assert rows[5]["note"].startswith("config.batch_size is 640: it must be a multiple of the 256")


# 640 over 8 chips is 80 on each, of which 64 is the largest power of two.
@pytest.mark.parametrize("devices, examples, mixup, found", [
    (256, 10**6, 0.5, 64 * 256),
    (256, 64 * 256 - 1, 0.5, 32 * 256),
    (256, 256, 0.0, 256),
    (256, 256, 0.5, None),  # mixing pairs the examples of a device
])  # fmt: skip
def test_another_batch_for_devices_that_cannot_share_it(experiment, devices, examples, mixup, found):
    config = ways.with_flags(experiment.config, "config.batch_size=640")
    config.mixing.mixup_alpha = mixup
    changed = common_config(config, 1, devices, examples)
    assert (changed and changed.batch_size) == found
