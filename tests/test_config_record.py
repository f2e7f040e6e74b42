"""What a resumed run may change, told field by field, and the digest of the rest."""

import json

import pytest

from convmixer_jax.config import get_base, to_plain
from convmixer_jax.config_record import EVAL_MAY_CHANGE, RESUME_MAY_CHANGE, differences, digest
from tests.config_values import BASE, OTHER, base_with

MAY_CHANGE = {
    "input", "on_bad_example", "devices", "fsdp_devices", "steps_per_dispatch", "model.preset", "model.ops",
    "model.remat", "eval_flip", "eval_batch_size", "report_every_steps", "eval_every_epochs", "checkpoint_every_steps",
    "keep_checkpoints", "wandb_project", "compilation_cache", "max_skipped_steps", "stop_grace_seconds",
    "watchdog_seconds", "watchdog_compile_seconds",
}  # fmt: skip


@pytest.mark.parametrize("name", BASE)
def test_a_resumed_run_may_change_only_what_computes_nothing(name):
    saved = to_plain(get_base())
    changed = base_with(**{name: OTHER[name]})
    if name in MAY_CHANGE:
        assert differences(saved, changed) == []
        assert digest(changed) == digest(get_base())
    else:
        # As they stand in config.json, where tuples are lists.
        old, new = json.loads(json.dumps([BASE[name], OTHER[name]]))
        assert differences(saved, changed) == [f"config.{name}: {old!r} -> {new!r}"]
        # A checkpoint does not know which of its variables will be evaluated.
        assert (digest(changed) == digest(get_base())) == (name == "eval_params")


def test_an_evaluation_may_ask_for_the_other_variables():
    assert EVAL_MAY_CHANGE - RESUME_MAY_CHANGE == {"eval_params"}
    assert differences(to_plain(get_base()), base_with(eval_params="ema"), EVAL_MAY_CHANGE) == []


def test_what_may_change_is_what_the_tests_expect():
    assert set(RESUME_MAY_CHANGE) == MAY_CHANGE


def test_all_differences_are_listed_in_order():
    changed = base_with(**{"seed": 1, "devices": 2, "epochs": 3, "model.dim": 4})
    assert differences(to_plain(get_base()), changed) == [
        "config.epochs: 25 -> 3",
        "config.model.dim: 256 -> 4",
        "config.seed: 0 -> 1",
    ]


def test_a_field_that_came_later_had_the_bases_value():
    saved = to_plain(get_base())
    del saved["label_smoothing"], saved["devices"]
    assert differences(saved, get_base()) == []
    assert differences(saved, base_with(label_smoothing=0.1)) == ["config.label_smoothing: 0.0 -> 0.1"]


def test_a_field_that_went_is_a_difference():
    saved = to_plain(get_base()) | {"mixup_alpha": 0.5}
    assert differences(saved, get_base()) == ["config.mixup_alpha: 0.5 -> 'no such field any more'"]


def test_the_digest_does_not_depend_on_the_order_of_the_fields_but_on_their_values():
    digests = {digest(base_with(**{name: value})) for name, value in OTHER.items() if name not in EVAL_MAY_CHANGE}
    assert len(digests) == len(OTHER) - len(EVAL_MAY_CHANGE)
    assert all(len(each) == 64 and int(each, 16) > 0 for each in digests)


def test_a_folder_of_images_may_be_moved():
    here, there = base_with(dataset="folder:photos"), base_with(dataset="folder:/mnt/photos")
    assert differences(to_plain(here), there) == []
    assert digest(here) == digest(there) != digest(get_base())
    assert differences(to_plain(here), base_with(dataset="tfds:photos")) == [
        "config.dataset: 'folder:' -> 'tfds:photos'"
    ]
