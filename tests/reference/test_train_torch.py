"""The script that puts PyTorch beside us runs the same recipe: without augmentation it ends with our weights."""

import jax
import numpy as np
import pytest

from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import Examples
from convmixer_jax.data.resident import ResidentInput
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.mesh import over_data, replicated
from tests.reference import train_torch
from tests.reference.torch_convmixer import read_parameters


def small_experiment():
    config = get_base()
    config.train_examples, config.batch_size, config.epochs, config.devices = 64, 16, 2, 1
    config.model.dim, config.model.depth, config.model.kernel_size = 8, 1, 4
    config.augment.order = ()
    config.label_smoothing = 0.1
    config.optimizer.decay_mask = "kernels"
    # A large eps: an error of a gradient then moves a weight by rate / eps = 0.5 times itself, no more.
    config.optimizer.eps, config.schedule.learning_rate = 1e-2, 5e-3
    return assemble(config)


@pytest.mark.slow
def test_it_ends_with_our_weights():
    experiment = small_experiment()
    draw = np.random.default_rng(0)
    examples = Examples(draw.integers(0, 256, (64, 32, 32, 3), np.uint8), draw.integers(0, 10, 64, np.int32))
    shardings = replicated(experiment.mesh), over_data(experiment.mesh)
    source = ResidentInput(examples, *shardings, seed=0, batch_size=16)
    state = experiment.init_state(np.uint32(0))
    for step in range(0, experiment.total_steps, experiment.steps_per_epoch):
        batches = next_batches(experiment.inputs, source, step, experiment.steps_per_epoch, experiment.plan)
        count = np.int32(experiment.steps_per_epoch)
        state, _ = experiment.dispatch(state, np.uint32(0), source.data, batches, count)

    model = train_torch.make_model(experiment)
    train_torch.train(model, experiment, examples)
    theirs = read_parameters(model)
    for path, ours in jax.tree_util.tree_leaves_with_path(state.params):
        other = theirs[path[0].key][path[1].key]
        # float32 over eight updates; clip_grad_norm_ divides by the norm + 1e-6, which is below that.
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-4 * np.abs(ours).max(), err_msg=str(path))


def test_its_crops_and_flips_are_of_the_recipes_kind():
    config = get_base()
    image = np.arange(32 * 32 * 3, dtype=np.uint16).reshape(1, 32, 32, 3).astype(np.uint8)
    padded = np.pad(image[0], ((4, 4), (4, 4), (0, 0)))
    crops = {padded[y : y + 32, x : x + 32].tobytes() for y in range(9) for x in range(9)}
    mirrored = {padded[y : y + 32, x : x + 32][:, ::-1].tobytes() for y in range(9) for x in range(9)}
    drawn = [train_torch.augment(image, config, np.random.default_rng(seed))[0].tobytes() for seed in range(100)]
    assert set(drawn) <= crops | mirrored
    assert 30 <= sum(one in mirrored - crops for one in drawn) <= 70  # 100 fair coins: four deviations
