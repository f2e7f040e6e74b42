"""Our side measures the programs of a run."""

import jax
import numpy as np
import pytest

from convmixer_jax.benchmarks import ours
from convmixer_jax.benchmarks.ours import FixedBatch, OurSide, build_eval, build_product, build_train
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_fixed_batch_has_the_sizes_asked_for():
    dataset = FixedBatch(24, 7).of(DATASETS["cifar10"])
    assert (dataset.image_shape, dataset.num_classes) == ((24, 24, 3), 7)
    same = FixedBatch(0, 0).of(DATASETS["cifar10"])
    assert (same.image_shape, same.num_classes) == ((32, 32, 3), 10)
    batch = ours.random_batch(dataset, 5)
    assert batch["image"].shape == (5, 24, 24, 3)
    np.testing.assert_allclose(batch["target"].sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(batch["target"].argmax(1), batch["label"])


def test_work_goes_out_in_parts_of_what_the_program_takes():
    handed = []
    OurSide(lambda count: handed.append(count), images=1, facts={}, at_once=4).run(10)
    assert handed == [4, 4, 2]


def test_the_train_side_makes_updates_of_the_run():
    config = small_config()
    config.steps_per_dispatch = 3
    side = build_train(config)
    assert side.at_once == 3
    side.run(5)
    state = side.hand_over.state
    assert int(state.step) == side.hand_over.number == 5
    assert int(state.epoch.examples) == 5 * 6
    assert side.facts["compile_seconds"] > 0
    assert side.facts["program_bytes"]["temporaries"] > 0
    # More than the products alone, 1.5 times here; the three updates of a dispatch would be 4.6.
    assert 1 < side.facts["compiler_flops_per_image"] / side.facts["flops_per_image"] < 3


def test_the_evaluation_counts_its_batch():
    config = small_config()
    config.eval_batch_size, config.devices = 9, 2
    side = build_eval(config, FixedBatch(16, 4))
    sums = side.hand_over(1)
    assert side.images == int(sums.examples.sum()) == 10  # the devices share it evenly
    assert sums.examples.shape == (4,)


def test_a_fixed_batch_may_be_larger_than_the_split():
    config = small_config()
    config.batch_size, config.mixing.mixup_alpha, config.devices = 64, 1.0, 2
    experiment = ours.assembled(config, FixedBatch(0, 0))
    data = ours.placed(experiment, config.batch_size, ("image", "target"))
    assert data["image"].shape == (64, 32, 32, 3)
    after, _ = jax.eval_shape(experiment.dispatch, experiment.abstract_state, np.uint32(0), data, {}, np.int32(1))
    assert after.step.shape == ()
    config.train_examples = 61
    assert ours.assembled(config, FixedBatch(0, 0)).sizes["train"] == 61
    with pytest.raises(UserError, match="config.batch_size is 64: the training split has 61"):
        build_train(config)


def test_a_product_has_its_operations(monkeypatch):
    monkeypatch.setitem(ours.PRODUCT_SIDE, "cpu", 64)
    side = build_product("bfloat16")
    assert side.facts["flops"] == 2 * 64**3
    assert side.hand_over(1).dtype == jax.numpy.bfloat16
    # XLA counts the same, and what little it converts.
    assert side.facts["compiler_flops_per_image"] == pytest.approx(2 * 64**3, rel=0.1)
