"""An update whose loss or gradient is not finite: left out and counted, and too many of them end the run."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convmixer_jax.config import get_base
from convmixer_jax.main import main
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.ops.choice import compiler_options
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training import assembly, runner
from convmixer_jax.training.loop import DivergedError
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.state import create_state
from tests.commands import DIGITS
from tests.training.digits import AS_USERS_GET_IT
from tests.training.steps import leaves, plain_step

BATCH = 8
TX = make_optimizer("adamw", decay_mask="all", clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.005)
RATES = np.array([0.01, 0.04, 0.02, 0.01, 0.01], np.float32)


pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def step_and_state(ops: str = "reference"):
    """A train step on images as they are, so that a batch may hold what pixels cannot, and its first state.

    Other operations than the reference are compiled as in a run: what their options allow could hide a NaN.
    """
    model = ConvMixer(dim=4, depth=1, patch_size=1, kernel_size=3, num_classes=3, ops=ops)
    options = {} if ops == "reference" else AS_USERS_GET_IT | compiler_options(ops, "cpu")
    rate, take = (lambda step: jnp.asarray(RATES)[step]), (lambda data, batch: batch)
    step = plain_step(model, TX, rate, take=take, augment=lambda key, images: images)
    create = functools.partial(create_state, model=model, tx=TX, image_shape=(4, 4, 1))
    return jax.jit(step, compiler_options=options), jax.jit(create)(np.uint32(0))


def batch(spoilt: float = 0.0):
    """Eight images with `spoilt` added to one pixel of one of them."""
    images = np.random.Generator(np.random.PCG64(0)).normal(size=(BATCH, 4, 4, 1)).astype(np.float32)
    images[3, 1, 2, 0] += spoilt
    return {"image": images, "label": np.arange(BATCH, dtype=np.int32) % 3}


def update(state, spoilt: float = 0.0, ops: str = "reference"):
    step, _ = step_and_state(ops)
    return step(state, np.uint32(0), {}, batch(spoilt))


def learnt(state):
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    return [(leaf.dtype, np.asarray(leaf).tobytes()) for leaf in leaves]


def with_head(state, factor: float):
    params = dict(state.params)
    params["head"] = {**params["head"], "kernel": params["head"]["kernel"] * np.float32(factor)}
    return state.replace(params=params)


@pytest.mark.parametrize("ops", ["reference", "channel_major"])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_is_left_out(spoilt, ops):
    _, start = step_and_state(ops)
    state, _ = update(start, ops=ops)
    before = learnt(state)
    assert before != learnt(start), "a sound batch is not left out"
    state, watch = update(state, spoilt, ops)
    assert learnt(state) == before
    assert (int(state.step), int(state.skipped_in_a_row)) == (2, 1)
    assert (int(watch["step"]), int(watch["skipped_in_a_row"])) == (2, 1)
    assert float(watch["learning_rate"]) == RATES[1]
    for sums in (state.report, state.epoch):
        assert (int(sums.skipped), int(sums.updates), int(sums.examples)) == (1, 1, BATCH)
        assert np.isfinite(sums.loss)
        assert np.isfinite(sums.grad_norm)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 2e38])
def test_a_weight_that_is_not_finite_is_seen(spoilt):
    """Nor is 2e38 hidden, of the weights whose first value the operations look at."""
    _, start = step_and_state("channel_major")
    looked_at = re.compile(r"'block.*'kernel'|'scale'")
    for name in leaves(start.params):
        if np.isfinite(spoilt) and not looked_at.search(name):
            continue
        params = jax.tree.map(np.array, start.params)
        leaves(params)[name].ravel()[0] = spoilt
        before = start.replace(params=params)
        after, watch = update(before, ops="channel_major")
        assert int(watch["skipped_in_a_row"]) == 1, name
        assert learnt(after) == learnt(before)


def test_an_infinite_gradient_of_a_finite_loss_is_left_out():
    # Logits of 1e25 have a loss of that size; the gradient of what lies below the head has the size of the head's
    # weights, and its squares, 1e50, are beyond float32.
    _, start = step_and_state()
    state, _ = update(start)
    state = with_head(state, 1e25)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    model = ConvMixer(dim=4, depth=1, patch_size=1, kernel_size=3, num_classes=3)

    def loss_fn(params):
        logits, _ = model.apply({**variables, "params": params}, batch()["image"], train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch()["label"]).mean()

    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(state.params)
    with np.errstate(over="ignore"):
        norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf))) for leaf in jax.tree.leaves(grads)))
    assert np.isfinite(loss)
    assert np.isinf(norm)

    before = learnt(state)
    state, _ = update(state)
    assert learnt(state) == before
    assert (int(state.step), int(state.skipped_in_a_row), int(state.report.skipped)) == (2, 1, 1)


def test_counts_over_several_updates():
    _, state = step_and_state()
    rows = []
    for spoilt in (np.nan, np.inf, 0.0, np.nan):
        state, _ = update(state, spoilt)
        rows.append((int(state.step), int(state.skipped_in_a_row), int(state.report.skipped), int(state.epoch.updates)))
    assert rows == [(1, 1, 1, 0), (2, 2, 2, 0), (3, 0, 2, 1), (4, 1, 3, 1)]
    means = state.report.means()
    assert means["train/skipped_updates"] == 3
    assert np.isfinite(list(means.values())).all()


def test_the_learning_rate_follows_the_step_and_the_optimiser_the_updates():
    # The first update of AdamW for a rate of 1 is the same whether a batch was left out before it or not; the rate
    # is 0.01 without one and 0.04 after it.
    _, start = step_and_state()
    at_once, _ = update(start)
    after_one, _ = update(update(start, np.nan)[0])
    assert [leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(after_one.opt_state))] == [
        leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(at_once.opt_state))
    ]
    for old, first, second in zip(*map(jax.tree.leaves, (start.params, at_once.params, after_one.params)), strict=True):
        moves = [np.asarray(new, np.float64) - np.asarray(old, np.float64) for new in (first, second)]
        # Weights near 1 are rounded to 6e-8 after each of the two additions; the moves are 0.01 and 0.04.
        np.testing.assert_allclose(moves[1], 4 * moves[0], rtol=0, atol=5e-7)
        assert np.abs(moves[0]).max() > 1e-3


def digits_config():
    config = get_base()
    config.dataset = "digits"
    config.devices = 1
    config.train_examples = 320
    config.batch_size = 16
    config.epochs = 1
    config.augment.order = ()
    config.model.dim, config.model.depth = 4, 1
    config.model.patch_size, config.model.kernel_size = 1, 3
    config.schedule.name = "constant"
    config.optimizer.clip_norm = 0.0
    config.compilation_cache = False
    config.report_every_steps = 1
    return config


def explode_after(monkeypatch, last_sound_update: int):
    """The next update has a rate of 1e30: it is finite itself, and every one after it is not."""

    def make_schedule(name, settings):
        return lambda step: jnp.where(step < last_sound_update, 1e-3, 1e30)

    monkeypatch.setattr(assembly, "make_schedule", make_schedule)


def diverge(config, workdir) -> str:
    with StopRequest() as stop, pytest.raises(DivergedError) as raised:
        runner.train(config, workdir, workdir, stop, Timeline())
    assert not (workdir / "result.json").exists()
    return str(raised.value)


def test_too_many_in_a_row_stop_the_run(tmp_path, monkeypatch):
    # Sound up to 4, update 5 explodes, 6 to 8 are left out: three in a row.
    explode_after(monkeypatch, 4)
    config = digits_config()
    config.max_skipped_steps = 3
    config.checkpoint_every_steps = 4
    config.keep_checkpoints = 9
    message = diverge(config, tmp_path)
    assert message.startswith("3 updates in a row up to step 8 had a non-finite loss or gradient")
    assert "config.max_skipped_steps" in message
    assert "config.schedule.learning_rate" in message
    rows = [row for row in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"train/loss"' in row]
    assert [re.search(r'"train/skipped_updates": (\d)', row)[1] for row in rows][:8] == list("00000111")


def test_too_many_inside_of_a_dispatch_stop_the_run(tmp_path, monkeypatch):
    # The same, in dispatches of 1, 3, 8 and 8 updates, which go on to 12 and 20 and save nothing of that.
    explode_after(monkeypatch, 4)
    config = digits_config()
    config.max_skipped_steps = 3
    config.report_every_steps = 20
    config.checkpoint_every_steps = 4
    config.steps_per_dispatch = 8
    message = diverge(config, tmp_path)
    assert message.startswith("3 updates in a row up to step 8 had a non-finite loss or gradient")
    assert "the last good checkpoint is step 4." in message
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [4]


def test_the_message_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    # Checkpoints 2, 4, 6, 8: those of 6 and 8 came in the middle of the updates that were left out. Whoever goes on
    # from them has the weights that no update can be made from.
    explode_after(monkeypatch, 4)
    config = digits_config()
    config.max_skipped_steps = 3
    config.checkpoint_every_steps = 2
    config.keep_checkpoints = 9
    message = diverge(config, tmp_path)
    assert set(Checkpoints(tmp_path / "checkpoints", read_only=True).steps()) >= {2, 4}
    assert "the last good checkpoint is step 4." in message


def test_the_message_says_where_there_is_no_checkpoint(tmp_path, monkeypatch):
    explode_after(monkeypatch, 1)
    config = digits_config()
    config.max_skipped_steps = 1
    config.checkpoint_every_steps = 100
    assert "the last good checkpoint is none." in diverge(config, tmp_path)


def test_fewer_in_a_row_do_not(tmp_path, monkeypatch):
    # The other side: 20 updates, all after the fifth left out, and a limit that is never reached.
    explode_after(monkeypatch, 4)
    config = digits_config()
    config.max_skipped_steps = 16
    with StopRequest() as stop:
        assert runner.train(config, tmp_path, tmp_path, stop, Timeline()) == 0
    assert (tmp_path / "result.json").exists()


def test_the_command_ends_with_1_and_a_traceback(elsewhere, capsys):
    arguments = {
        "train_examples": 320,
        "batch_size": 16,
        "model.dim": 4,
        "model.depth": 1,
        "schedule.name": "constant",
        "schedule.learning_rate": 1e30,
        "optimizer.clip_norm": 0.0,
        "max_skipped_steps": 2,
        "devices": 1,
        "compilation_cache": False,
    }
    flags = [f"--config.{name}={value}" for name, value in arguments.items()]
    assert main(["main", *DIGITS, *flags]) == 1
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert "DivergedError: 2 updates in a row up to step 3 had a non-finite loss or gradient" in told
