"""A preset fills the fields of a model that nobody set, and refuses those that were set to something else."""

import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.config import get_base
from convmixer_jax.config_rules import check
from convmixer_jax.errors import UserError
from convmixer_jax.presets import PRESETS, check_preset, fill
from tests.commands import DIGITS
from tests.config_values import base_with

PLAIN_RECIPE = "from convmixer_jax.config import get_base\ndef get_config():\n    config = get_base()\n"


@pytest.fixture
def recipe(elsewhere, tmp_path):
    """Returns a function of more lines of a recipe, and of overrides, to the fields of its model."""

    def read(*lines: str, overrides: tuple[str, ...] = ()) -> dict:
        path = tmp_path / "recipe.py"
        path.write_text(PLAIN_RECIPE + "".join(f"    {line}\n" for line in lines) + "    return config\n")
        return parse(["main", "--config", str(path), *overrides]).config.model.to_dict()

    return read


def test_presets_name_fields_of_the_model_with_values_of_their_kind():
    base = get_base().model.to_dict()
    for name, fields in PRESETS.items():
        assert {field: type(value) for field, value in fields.items()} == {field: type(base[field]) for field in fields}
        check(base_with(**{f"model.{field}": value for field, value in fields.items()}, **{"model.preset": name}))


def test_a_preset_fills_what_is_as_in_the_base(recipe):
    model = recipe("config.model.drop_path = 0.1", overrides=("--config.model.preset=convmixer_768_32",))
    filled = get_base().model.to_dict() | {"preset": "convmixer_768_32", "drop_path": 0.1}
    assert model == filled | {"dim": 768, "depth": 32, "patch_size": 7, "kernel_size": 7, "activation": "relu"}
    # In the recipe it means the same, and the command line may choose another or none.
    named = "config.model.preset = 'convmixer_1536_20'"
    assert recipe(named)["dim"] == 1536
    assert recipe(named, overrides=("--config.model.preset=convmixer_768_32",))["dim"] == 768
    assert recipe(named, overrides=("--config.model.preset=",)) == get_base().model.to_dict()


def test_fields_that_agree_are_no_contradiction(recipe):
    both = ("--config.model.preset=convmixer_768_32", "--config.model.dim=768", "--config.model.depth=32")
    assert recipe("config.model.kernel_size = 7", overrides=both)["patch_size"] == 7


CONTRADICTIONS = {
    "a recipe's field": (["config.model.dim = 64"], (), "dim is 64: config.model.preset=convmixer_768_32 has 768"),
    "the command line's": ([], ("--config.model.kernel_size=9",), "kernel_size is 9: .* has 7"),
    "the base's value, asked for": ([], ("--config.model.dim=256",), "dim is 256: .* has 768"),
    "another architecture": ([], ("--config.model.block=bottleneck",), "block is 'bottleneck': .* has 'plain'"),
}


@pytest.mark.parametrize("lines, overrides, told", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_names_the_field_both_values_and_the_way_out(recipe, lines, overrides, told):
    with pytest.raises(UserError, match=rf"config\.model\.{told} there; .*--config\.model\.preset=''"):
        recipe(*lines, overrides=("--config.model.preset=convmixer_768_32", *overrides))


def test_the_command_line_ends_with_2(elsewhere, refused):
    line = refused(*DIGITS, "--config.model.preset=convmixer_256_8_p1_k9")
    assert "config.model.dim is 64: config.model.preset=convmixer_256_8_p1_k9 has 256 there" in line
    line = refused(*DIGITS, "--config.model.preset=convmixer_768_23")
    assert "config.model.preset is 'convmixer_768_23' (did you mean convmixer_768_32?)" in line


def test_a_config_that_was_not_filled_is_refused():
    with pytest.raises(UserError, match=r"config\.model\.dim is 256: config\.model\.preset=convmixer_1536_20 has 1536"):
        check(base_with(**{"model.preset": "convmixer_1536_20"}))


def test_no_preset_asks_for_nothing():
    model = {"preset": "", "dim": 3}
    fill(model, {"dim": 3}, ())
    check_preset("", model)
    assert model == {"preset": "", "dim": 3}
