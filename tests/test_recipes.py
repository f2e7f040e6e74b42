"""Every file of configs/ is a whole recipe, and every field of the base config has a rule and a reader."""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from convmixer_jax.augment.mixing import make_mix
from convmixer_jax.augment.pipeline import AUGMENTATIONS
from convmixer_jax.command_line import parse
from convmixer_jax.config import flatten, get_base
from convmixer_jax.config_record import RESUME_MAY_CHANGE
from convmixer_jax.config_rules import RULES, check
from convmixer_jax.models.variants import make_model
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.optimizers import OPTIMIZERS, make_decay, make_optimizer

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").rglob("*.py"))

# Trainable parameters, counted in the paper's table and by timm, or by hand from the formula.
PARAMETERS = {
    "cifar10": 706_570,
    "cifar10_fast": 594_186,
    "cifar10_fast_100": 594_186,
    "digits": 21_130,
    "imagenet_1024_20": 24_383_464,
    "imagenet_1536_20": 51_625_960,
    "imagenet_512_16": 5_357_544,
    "imagenet_768_32": 21_110_248,
    "report_a": 706_570,
    "report_a_cnn": 620_362,
    "report_b": 594_186,
    "report_b_512": 2_236_938,
    "report_b_bottleneck": 1_099_018,
    "report_b_grid": 594_186,
    "report_b_linear": 594_698,
    "report_b_representation": 726_794,
    "report_c": 103_434,
    "report_c_early": 103_434,
    "report_d": 559_114,
    "staged_tiny_imagenet": 2_628_584,
}
# What the first line of a recipe says of its model, where that is no ConvMixer of one stage.
SUMMARIES = {"staged": "ConvMixer of three stages ({0}, {1}, {2} channels)", "cnn": "CNN of three convolutions"}


def load(path: Path) -> ConfigDict:
    """Reads a recipe in the way of the command line."""
    sys.modules.pop("config_config", None)  # where ml_collections keeps the recipe it read last
    return parse(["main", "--config", str(path)]).config


def parameters(channels: int, h: int, d: int, p: int, k: int, n: int) -> int:
    return channels * p**2 * h + 3 * h + d * (k**2 * h + h**2 + 6 * h) + h * n + n


def own_parameters(model: ConfigDict, channels: int, n: int) -> int:
    """What a ConvMixer's other heads and blocks have more, added to the formula of the published one."""
    h, d, k, narrow = model.dim, model.depth, model.kernel_size, model.dim // model.bottleneck_factor
    heads = {"linear": 0, "bn_dropout": 2 * h, "representation": 2 * h + (h + 1 + 256 + 1) * 256 + 512 + (256 - h) * n}
    # There and back with biases and norms, and the depthwise kernel, bias and norm of fewer channels.
    blocks = {"plain": 0, "bottleneck": 2 * h * narrow + 3 * narrow + 3 * h - (h - narrow) * (k**2 + 3)}
    return parameters(channels, h, d, model.patch_size, k, n) + heads[model.head] + d * blocks[model.block]


def test_the_recipes_are_found():
    assert {path.stem for path in RECIPES} >= {"cifar10", "cifar10_fast", "digits"}
    assert [path for path in RECIPES if path.parent != ROOT / "configs"] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_locked_base(path):
    config, base = load(path), get_base()
    assert config.is_locked
    assert [(name, type(value)) for name, value in flatten(config)] == [
        (name, type(value)) for name, value in flatten(base)
    ]
    check(config)
    assert dict(flatten(config)) != dict(flatten(base)) or path.stem == "base"


def own_time(path: Path) -> Any:
    """The deep models of ImageNet take seconds each to trace."""
    return pytest.param(path, marks=pytest.mark.slow) if path.stem.startswith("imagenet") else path


@pytest.mark.parametrize("path", map(own_time, RECIPES), ids=lambda path: path.stem)
def test_a_recipe_assembles_and_says_what_it_costs(path):
    config = load(path)
    config.devices = 1
    config.model.ops = "reference"  # traced in a third of the time; parameters are the same
    experiment = assemble(config)
    channels, classes = experiment.dataset.image_shape[-1], experiment.dataset.num_classes
    assert path.stem in PARAMETERS, "a new recipe needs a row in PARAMETERS"
    expected = PARAMETERS[path.stem]
    leaves = jax.tree.leaves(experiment.abstract_state.params)
    assert experiment.num_params == sum(leaf.size for leaf in leaves) == expected
    if config.model.variant == "convmixer":
        assert own_parameters(config.model, channels, classes) == expected
    doc = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    assert f"Cost: {expected:,} parameters, {experiment.steps_per_epoch} updates of {config.batch_size} an epoch" in doc
    # Nothing was computed and no data were touched: all leaves are shapes.
    assert {type(leaf) for leaf in leaves} == {jax.ShapeDtypeStruct}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it_and_where_it_comes_from(path):
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    entries = dict(re.findall(r"^(\w+): +(\S.*)$", doc, re.MULTILINE))
    assert {"Command", "Source", "Expected", "Cost"} <= set(entries)
    assert f"python -m convmixer_jax.main --config configs/{path.name}" in entries["Command"]
    config = load(path)
    summary = doc.splitlines()[0]
    model = config.model
    shape = f"ConvMixer-{model.dim}/{model.depth} (patch {model.patch_size}, kernel {model.kernel_size})"
    assert SUMMARIES.get(model.variant, shape).format(*(model.dim * 2**stage for stage in range(3))) in summary
    assert f"in {config.epochs} epochs" in summary


def test_the_formula_of_the_parameters_is_that_of_the_published_counts():
    published = {(256, 8, 2, 5): 594_186, (256, 8, 1, 9): 706_570, (128, 4, 1, 8): 103_434, (256, 16, 1, 8): 1_339_402}
    assert {kind: parameters(3, *kind, n=10) for kind in published} == published
    assert parameters(3, 1536, 20, 7, 9, n=1000) == 51_625_960


FIELDS = [name for name, _ in flatten(get_base())]


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert sorted(RULES) == sorted(FIELDS)
    assert set(FIELDS) >= RESUME_MAY_CHANGE
    check(get_base())


# Groups of fields that are handed on whole, as keyword arguments: whose arguments they become. An optimiser's row
# reads what make_optimizer leaves over off its settings.
GROUPS: dict[str, list[Callable]] = {
    "model": [make_model],
    "optimizer": [make_optimizer, make_decay, *OPTIMIZERS.values()],
    "mixing": [make_mix],
    **{f"augment.{name}": [row.apply] for name, row in AUGMENTATIONS.items()},
}


def attributes_read(source: str) -> Iterator[str]:
    """Yields "a.b" for every `config.a.b` and `self.config.a.b` that is read, not assigned."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            _, found, name = f".{ast.unparse(node)}".partition(".config.")
            if found:
                yield name


def arguments_read(function: Callable) -> set[str]:
    """The parameters of a function that its body looks at, and the fields that it reads off its `settings`."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(function))))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    fields = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "settings"}
    return fields | (names & set(inspect.signature(function).parameters))


def unread(fields: Iterable[str], sources: Iterable[str]) -> list[str]:
    read = {name for source in sources for name in attributes_read(source)}
    for group, functions in GROUPS.items():
        read |= {f"{group}.{argument}" for function in functions for argument in arguments_read(function)}
    return [field for field in fields if field not in read]


SOURCES = {path: path.read_text() for path in (ROOT / "convmixer_jax").rglob("*.py") if path.name not in ("config.py",)}


def test_every_field_is_read_somewhere():
    assert unread(FIELDS, SOURCES.values()) == []


def test_a_field_that_nothing_reads_is_found():
    planted = ["batch_size", "bach_size", "model.width", "optimizer.momentum", "augment.horizontal_flip.axis"]
    source = "config.bach_size = 1\nexperiment.config.model.width = 2\n"  # assigned, but never looked at
    assert unread(planted, [*SOURCES.values(), source]) == planted[1:]


def test_the_groups_that_are_handed_on_whole_are_those():
    calls = [node for source in SOURCES.values() for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    starred = [ast.unparse(keyword.value) for call in calls for keyword in call.keywords if keyword.arg is None]
    called = [ast.unparse(call.func) for call in calls]
    as_dicts = [name for name in called if re.search(r"\bconfig\.\w+\.to_dict$", name)]
    assert sorted(name for name in starred if ".config." in f".{name}") == [
        "config.augment.random_resized_crop", "config.augment.random_resized_crop",
        "config.mixing", "config.optimizer", "config.optimizer", "config.optimizer",
    ]  # fmt: skip
    assert sorted(as_dicts) == [
        "config.augment.to_dict", "config.model.to_dict", "config.model.to_dict", "config.model.to_dict",
        "config.optimizer.to_dict",
    ]  # fmt: skip
