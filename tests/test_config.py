"""The base config is locked, its checks refuse what cannot be, and a resumed run is compared field by field."""

import json

import pytest

from convmixer_jax.config import flatten, get_base, to_plain
from convmixer_jax.config_rules import RULES, check
from convmixer_jax.errors import UserError
from tests.config_values import BAD, BASE, OTHER, base_with


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
