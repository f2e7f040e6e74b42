"""Fields of the model that do not fit the variant or each other. Those that do not fit the data: test_bad_inputs.py."""

import pytest

from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.models.variants import VARIANTS
from convmixer_jax.training.assembly import choose_ops
from convmixer_jax.training.checks import OF_EVERY_VARIANT, check_against_dataset, check_against_mesh, check_model
from convmixer_jax.training.mesh import make_mesh
from tests.commands import CPU_OPS
from tests.config_values import OTHER, base_with

MODEL_FIELDS = [name.removeprefix("model.") for name in OTHER if name.startswith("model.")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_base_is_a_model_of_every_variant(variant):
    check_model(base_with(**{"model.variant": variant}))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("field", sorted(set(MODEL_FIELDS) - {"variant"}))
def test_a_field_that_a_variant_does_not_read_is_refused(variant, field):
    value = 16 if field == "dim" else OTHER[f"model.{field}"]
    config = base_with(**{"model.variant": variant, f"model.{field}": value})
    if field in OF_EVERY_VARIANT or VARIANTS[variant].reads(field):
        check_model(config)
        return
    with pytest.raises(UserError) as caught:
        check_model(config)
    told = f"config.model.{field} is {value!r}: config.model.variant={variant} does not read it; leave it at "
    assert str(caught.value).startswith(f"{told}{get_base().model[field]!r}, or take a variant that does (convmixer")


MISTAKES = {
    "two dropouts": (
        {"model.head": "bn_dropout", "model.head_dropout": 0.1},
        "config.model.head_dropout is 0.1: the head 'bn_dropout' has a dropout of its own",
    ),
    "a bottleneck of no whole channels": (
        {"model.block": "bottleneck", "model.bottleneck_factor": 3},
        "config.model.bottleneck_factor is 3: it must divide config.model.dim, which is 256",
    ),
    "groups of no whole channels": (
        {"model.variant": "staged", "model.dim": 100},
        "config.model.dim is 100: the variant 'staged' needs a multiple of 8",
    ),
    "groups of a norm without statistics": (
        {"model.norm": "layer", "model.bn_group_size": 16},
        "config.model.bn_group_size is 16: the norm 'layer' (config.model.norm) has no statistics of a batch; set it",
    ),
    "no such variant": ({"model.variant": "stagd"}, "config.model.variant is 'stagd' (did you mean staged?)"),
}


@pytest.mark.parametrize("values, told", MISTAKES.values(), ids=MISTAKES)
def test_fields_that_do_not_fit_each_other_are_refused(values, told):
    with pytest.raises(UserError) as caught:
        check_model(base_with(**values))
    assert str(caught.value).startswith(told)


def test_patches_are_asked_for_where_there_are_patches():
    values = {"dataset": "digits", "model.patch_size": 9}
    with pytest.raises(UserError, match=r"config\.model\.patch_size is 9"):
        check_against_dataset(base_with(**values), DATASETS["digits"])
    check_against_dataset(base_with(**values, **{"model.variant": "cnn"}), DATASETS["digits"])


@pytest.mark.parametrize("asked", ["auto", "channel_major"])
def test_what_the_fast_operations_do_not_know_takes_the_reference_and_says_why(asked):
    values = {"model.ops": asked, "model.block": "bottleneck"}
    found = choose_ops(base_with(**values), DATASETS["cifar10"], make_mesh(1))
    taken = CPU_OPS if asked == "auto" else asked
    assert found == ("reference", f"{taken}: it does not know the block 'bottleneck'")
    reference = base_with(**(values | {"model.ops": "reference"}))
    assert choose_ops(reference, DATASETS["cifar10"], make_mesh(1)) == ("reference", None)


# On 8 devices. What does not fit: the group, the batch, its micro-batches, and what is said of it.
GROUPS = {
    "no divisor of the batch": (24, 64, 1, "it must divide config.batch_size, 64; 8, a device's share, does"),
    "more than a micro-batch": (64, 64, 2, "it must divide config.batch_size / config.accumulate_steps, 64 / 2; 4,"),
    "less than a device": (8, 96, 1, "each of the 8 devices has 12 examples of a micro-batch of 96; take a divisor"),
}


@pytest.mark.parametrize("group, batch, parts, told", GROUPS.values(), ids=GROUPS)
def test_groups_that_are_not_whole_are_refused(group, batch, parts, told):
    values = {"batch_size": batch, "accumulate_steps": parts, "model.bn_group_size": group}
    with pytest.raises(UserError) as caught:
        check_against_mesh(base_with(**values), make_mesh(8))
    assert str(caught.value).startswith(f"config.model.bn_group_size is {group}: {told}")


@pytest.mark.parametrize("group, parts", [(2, 1), (8, 1), (16, 1), (64, 1), (4, 2), (32, 2)])
def test_whole_groups_are_taken(group, parts):
    values = {"batch_size": 64, "accumulate_steps": parts, "model.bn_group_size": group}
    check_against_mesh(base_with(**values), make_mesh(8))
