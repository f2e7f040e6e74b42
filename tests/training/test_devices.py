"""One program on 1, 2 and 8 devices: the same numbers, no batch sent around, checkpoints for any of them."""

import jax
import numpy as np
import pytest

from convmixer_jax.planning.program_text import read_collectives
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training.resume import first_state
from tests.training.digits import (
    assert_same_run,
    through_disk,
    train,
)
from tests.training.steps import bits, sent

# Of float32 no more is wanted than that nothing but rounding comes in.
RUNS = [pytest.param("float64", 3, (1, 2, 8), marks=pytest.mark.slow), ("float32", 3, (1, 8))]


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("dtype, kernel_size, devices", RUNS)
def test_twenty_updates_are_the_same_on_any_number_of_devices(dtype, kernel_size, devices):
    with jax.enable_x64(dtype == "float64"):
        one, *others = [train(dtype, kernel_size, count) for count in devices]
    assert_same_run(one, others, dtype)


# Without augmentation, which has nothing to do with them.
OTHERS = [{"ops": ops, "order": ()} for ops in ("reference", "shifted")]
PLAIN = {"order": ()}


@pytest.mark.parametrize("changes", OTHERS)
def test_other_operations_are_the_same_on_8_devices(changes):
    one, eight = (train("float32", 3, devices, **changes) for devices in (1, 8))
    assert_same_run(one, [eight])


@pytest.mark.parametrize("changes", [{}, *OTHERS])
def test_the_compiled_step_splits_the_work_and_sends_only_sums(changes):
    one, eight = (train("float32", 3, devices, **changes).program for devices in (1, 8))
    assert sent(one.as_text()) == []
    assert {name for name, _ in sent(eight.as_text())} == {"all-reduce"}
    # Every device updates all parameters (about 350, some 30 operations each) and draws all random numbers: about 1e4
    # operations of the 2e7 in the whole step. An eighth of those is 2.6e6, so a device has half a hundredth more than
    # that; two hundredths are let through. One of the three convolutions on the whole batch on every device would
    # add far more than that: the smallest, the stem, has 3 * 2 * 64 * 64 * 8 = 2e5 operations.
    share = eight.cost_analysis()["flops"] / one.cost_analysis()["flops"]
    assert 1 / 8 <= share < 1 / 8 * 1.02


# Of a device's 8 examples, all; slower, half of them and those of two devices. One block alone:
# tests/ops/test_features_on_devices.py.
GROUPS = [
    (PLAIN, 8),
    (OTHERS[0], 8),
    *(
        pytest.param(changes, size, marks=pytest.mark.slow)
        for changes, size in ((PLAIN, 4), (PLAIN, 16), (OTHERS[0], 16))
    ),
]


@pytest.mark.parametrize("changes, size", GROUPS)
def test_groups_of_examples_have_the_same_statistics_on_8_devices(changes, size):
    one, eight = (train("float32", 3, devices, bn_group_size=size, **changes) for devices in (1, 8))
    assert_same_run(one, [eight])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same_run(train("float32", 3, 8, **OTHERS[0]), [eight])  # one group of all


@pytest.mark.parametrize("changes", [PLAIN, OTHERS[0]])
def test_a_group_within_a_device_sends_gradients_and_averages_alone(changes):
    trained = train("float32", 3, 8, bn_group_size=8, **changes)
    found = read_collectives(trained.program.as_text())
    assert {(each.kind, each.group) for each in found} == {("all-reduce", 8)}
    state = trained.state
    expected = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    # And the sums of the metrics: numbers of a few bytes.
    assert expected <= sum(each.payload for each in found) <= expected + 64


def test_a_checkpoint_of_8_devices_goes_to_1_and_back(tmp_path):
    trained, one = train("float32", 3, 8), train("float32", 3, 1)
    changed = bits(trained.state.params)
    assert all(bits(trained.before.params)[name] != value for name, value in changed.items())
    on_one = through_disk(trained.on_devices, tmp_path / "for_1", one.experiment)
    assert bits(on_one) == bits(trained.state)
    back = through_disk(on_one, tmp_path / "for_8", trained.experiment)
    assert bits(back) == bits(trained.state)
    for leaf in jax.tree.leaves(back):
        copies = {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
        assert len(copies) == 1, "every device has the same"
    # A run that starts again finds the newest by itself.
    found, _ = first_state(one.experiment, Checkpoints(tmp_path / "for_8", read_only=True), None, print)
    assert bits(found) == bits(trained.state)
