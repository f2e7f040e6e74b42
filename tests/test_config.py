"""The base config is locked, its checks refuse what cannot be, and a resumed run is compared field by field."""

import json

import pytest

from convmixer_jax.config import RESUME_MAY_CHANGE, RULES, check, differences, digest, flatten, get_base, to_plain
from convmixer_jax.errors import UserError

BASE = dict(flatten(get_base()))


def base_with(**values):
    """The base with other values, given by dotted name."""
    config = get_base()
    # Rules are also tried with values that ConfigDict would refuse at once, since a recipe may silence it.
    with config.ignore_type():
        config.update_from_flattened_dict(values)
    return config


# A value of each field that is accepted and is not the base's.
OTHER = {
    "dataset": "digits",
    "train_examples": 1000,
    "val_fraction": 0.1,
    "mean": (0.0, 0.5, 1.0),
    "std": (0.1, 0.5, 1.0),
    "seed": 2**32 - 1,
    "batch_size": 1,
    "eval_batch_size": 100,
    "epochs": 1,
    "dtype": "bfloat16",
    "devices": 8,
    "model.variant": "other",
    "model.dim": 1,
    "model.depth": 1,
    "model.patch_size": 1,
    "model.kernel_size": 1,
    "model.activation": "relu",
    "model.initializer": "lecun_normal",
    "augment.order": (),
    "augment.pad_and_crop.pixels": 0,
    "augment.pad_and_crop.mode": "reflect",
    "augment.random_resized_crop.scale": (0.08, 0.08),
    "augment.random_resized_crop.ratio": (1, 100),
    "augment.random_resized_crop.interpolation": "bicubic",
    "augment.horizontal_flip.probability": 1.0,
    "label_smoothing": 0.999,
    "optimizer.name": "other",
    "optimizer.b1": 0.0,
    "optimizer.b2": 0.0,
    "optimizer.eps": 1e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.decay_mask": "kernels",
    "optimizer.clip_norm": 0.0,
    "schedule.name": "cosine",
    "schedule.learning_rate": 1e-9,
    "schedule.warmup_epochs": 5.5,
    "schedule.final_learning_rate": 0.01,
    "report_every_steps": 1,
    "eval_every_epochs": 2,
    "checkpoint_every_steps": 1,
    "keep_checkpoints": 1,
    "compilation_cache": False,
    "max_skipped_steps": 1,
}

NAN, INF = float("nan"), float("inf")
NO_COUNT = (0, -1)
NO_NUMBER = (NAN, INF, -INF)
NO_SHARE = (-0.1, 1.0, 1.5, *NO_NUMBER)
NO_NAME = (5, ("adamw",))

BAD = {
    "dataset": NO_NAME,
    "train_examples": (-1,),
    "val_fraction": NO_SHARE,
    "mean": ((-0.1,), (0.5, 1.1), (0.5, NAN), (INF,), ("red",), "red"),
    "std": ((0.0,), (0.5, -0.5), (1.1,), (NAN, 0.5), (INF,), ("red",)),
    "seed": (-1, 2**32),
    "batch_size": NO_COUNT,
    "eval_batch_size": (-1,),
    "epochs": NO_COUNT,
    "dtype": ("float16", "float64", "", "half"),
    "devices": (-1,),
    "model.variant": NO_NAME,
    "model.dim": NO_COUNT,
    "model.depth": NO_COUNT,
    "model.patch_size": NO_COUNT,
    "model.kernel_size": NO_COUNT,
    "model.activation": NO_NAME,
    "model.initializer": NO_NAME,
    "augment.order": ((1,), ("horizontal_flip", None)),
    "augment.pad_and_crop.pixels": (-1,),
    "augment.pad_and_crop.mode": NO_NAME,
    "augment.random_resized_crop.scale": ((), (0.5,), (0.0, 1.0), (0.9, 0.8), (0.5, 1.1), (NAN, 1.0), (0.5, NAN), "ab"),
    "augment.random_resized_crop.ratio": ((1, 2, 3), (-1.0, 1.0), (2.0, 1.0), (1.0, INF), (1.0, 101.0), (NAN, NAN)),
    "augment.random_resized_crop.interpolation": NO_NAME,
    "augment.horizontal_flip.probability": (-0.1, 1.1, *NO_NUMBER),
    "label_smoothing": NO_SHARE,
    "optimizer.name": NO_NAME,
    "optimizer.b1": NO_SHARE,
    "optimizer.b2": NO_SHARE,
    "optimizer.eps": (0.0, -1e-8, *NO_NUMBER),
    "optimizer.weight_decay": (-0.1, *NO_NUMBER),
    "optimizer.decay_mask": NO_NAME,
    "optimizer.clip_norm": (-1.0, *NO_NUMBER),
    "schedule.name": NO_NAME,
    "schedule.learning_rate": (0.0, -0.1, *NO_NUMBER),
    "schedule.warmup_epochs": (-1.0, *NO_NUMBER),
    "schedule.final_learning_rate": (-0.1, *NO_NUMBER),
    "report_every_steps": NO_COUNT,
    "eval_every_epochs": NO_COUNT,
    "checkpoint_every_steps": NO_COUNT,
    "keep_checkpoints": NO_COUNT,
    "compilation_cache": (1, "True"),
    "max_skipped_steps": NO_COUNT,
}


def test_the_tables_are_complete():
    assert sorted(OTHER) == sorted(BAD) == sorted(RULES) == sorted(BASE)
    assert [name for name, value in OTHER.items() if value == BASE[name]] == []


@pytest.mark.parametrize("name", BASE)
def test_a_good_value_passes(name):
    check(base_with(**{name: OTHER[name]}))


@pytest.mark.parametrize("name, value", [(name, value) for name, row in BAD.items() for value in row])
def test_a_bad_value_is_refused_with_field_value_and_what_is_accepted(name, value):
    with pytest.raises(UserError) as caught:
        check(base_with(**{name: value}))
    assert str(caught.value) == f"config.{name} is {value!r}: it must be {RULES[name][1]}"


def check_none(name):
    """What `check` says where a recipe assigns None, which ml_collections allows for fields of every type."""
    config = get_base()
    config.update_from_flattened_dict({name: None})
    try:
        check(config)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_none_is_refused():
    told = {name: check_none(name) for name in BASE}
    assert told == {name: f"UserError: config.{name} is None: it must be {RULES[name][1]}" for name in BASE}


def test_the_first_bad_field_is_named():
    with pytest.raises(UserError, match=r"config\.batch_size is 0"):
        check(base_with(**{"epochs": 0, "batch_size": 0}))


MISTAKES = {
    "unknown field": ("bach_size", 1, KeyError),
    "unknown field of a group": ("model.width", 1, KeyError),
    "unknown group": ("modle.dim", 1, KeyError),
    "string for int": ("batch_size", "512", TypeError),
    "float for int": ("batch_size", 1.5, TypeError),
    "list for float": ("optimizer.eps", [1e-8], TypeError),
    "string for tuple": ("augment.order", "horizontal_flip", TypeError),
    "int for string": ("model.activation", 1, TypeError),
}


@pytest.mark.parametrize("name, value, error", MISTAKES.values(), ids=MISTAKES)
def test_the_base_is_locked_and_typed(name, value, error):
    with pytest.raises(error):
        get_base().update_from_flattened_dict({name: value})


def test_the_base_is_made_anew_each_time():
    get_base().model.dim = 3
    assert get_base().model.dim == 256


def test_plain_values_survive_json():
    plain = to_plain(base_with(mean=(0.1, 0.2, 0.3)))
    assert json.loads(json.dumps(plain)) == plain
    assert sorted(name for name, _ in flatten(plain)) == sorted(BASE)
    assert plain["mean"] == [0.1, 0.2, 0.3]
    assert plain["augment"]["order"] == ["pad_and_crop", "horizontal_flip"]
    assert plain["augment"]["random_resized_crop"]["ratio"] == [0.75, 4 / 3]
    assert plain["optimizer"]["eps"] == 1e-8
    assert plain["compilation_cache"] is True


MAY_CHANGE = {
    "devices", "eval_batch_size", "report_every_steps", "eval_every_epochs", "checkpoint_every_steps",
    "keep_checkpoints", "compilation_cache", "max_skipped_steps",
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
        assert digest(changed) != digest(get_base())


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
    digests = {digest(base_with(**{name: value})) for name, value in OTHER.items() if name not in MAY_CHANGE}
    assert len(digests) == len(OTHER) - len(MAY_CHANGE)
    assert all(len(each) == 64 and int(each, 16) > 0 for each in digests)
