"""A model that cannot learn 64 images by heart cannot learn: the quickest check of everything that trains."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.evaluate import evaluate
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.state import create_state
from convmixer_jax.training.step import jit_eval_step, make_eval_step
from tests.training.steps import jit_once, no_gather, plain_step

IMAGES = 64
UPDATES = 40
SETTLING = 60  # more updates at rate 0: weights stay, the running statistics reach the batch's to 0.9 ** 60, 0.2 %


pytestmark = pytest.mark.usefixtures("quick_compilation")


def images_at_hand():
    """CIFAR-10 where $CONVMIXER_DATA_DIR has it, else the bundled digits."""
    data_dir = Path(os.environ.get("CONVMIXER_DATA_DIR", "/nonexistent"))
    name = "cifar10" if (data_dir / "cifar-10-batches-py").is_dir() else "digits"
    dataset = DATASETS[name]
    return dataset, load_split(dataset, "train", data_dir, train_examples=IMAGES)


@pytest.mark.slow
def test_64_images_are_learnt_by_heart(mesh):
    dataset, examples = images_at_hand()
    assert len(np.unique(examples.label)) == 10
    grid = mesh(1)
    whole, split = replicated(grid), over_data(grid)
    model = ConvMixer(dim=32, depth=2, patch_size=dataset.image_shape[0] // 8, kernel_size=3, num_classes=10)
    tx = make_optimizer("adamw", decay_mask="all", clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)
    to_input = functools.partial(normalise, mean=dataset.mean, std=dataset.std, dtype="float32")
    augment = make_augment((), {}, to_input)
    step = plain_step(model, tx, lambda step: jnp.where(step < UPDATES, 1e-2, 0.0), take=take, augment=augment)
    train_step = jit_once(step, grid)
    eval_step = jit_eval_step(
        make_eval_step(model, take=take, normalise=to_input, flip=False, gather=no_gather), grid, whole, {}
    )
    source = ResidentInput(examples, whole, split, seed=0, batch_size=IMAGES)
    create = functools.partial(create_state, model=model, tx=tx, image_shape=dataset.image_shape)
    state = jax.jit(create, out_shardings=whole)(np.uint32(0))
    right, losses = [], []
    for n in range(UPDATES + SETTLING):
        state = state.replace(epoch=jax.device_put(jax.device_get(state.epoch.zeros()), whole))
        state, _ = train_step(state, np.uint32(0), source.data, source.batch(n), np.int32(1))
        right.append(int(state.epoch.top1))
        losses.append(float(state.epoch.loss) / IMAGES)
    assert right[0] < IMAGES / 2, "chance is a tenth"
    assert right[UPDATES] == IMAGES
    # The same images through the running statistics, as in evaluation.
    found = evaluate(
        eval_step, state.params, state.batch_stats, ResidentEvaluation(examples, whole, split, IMAGES), IMAGES
    )
    assert found["top1"] == 1.0
    assert found["loss"] == pytest.approx(losses[-1], abs=0.1)
