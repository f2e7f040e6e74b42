"""The update's parts: micro-batches, moving averages, the penalty, the draws of dropout.

Gradients of micro-batches and of the penalty are compared with PyTorch's in tests/models/test_torch_parity.py; here is
what PyTorch cannot show: several devices, bits that must stay, draws. Plain gradient descent on random images in
float64, whose errors nothing amplifies: a sum of some thousand terms below BatchNorms keeps eleven of its sixteen
digits, so 1e-10 of each leaf's largest value is let through. What is wrong is off by 1e-3 and more.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.mesh import make_mesh
from convmixer_jax.training.state import TrainState, create_state
from convmixer_jax.training.update import UpdateSettings, make_update
from tests.training.steps import PLAIN, bits, jit_once, leaves, no_gather, plain_step, random_state, sent

BATCH, CLASSES, SHAPE = 32, 3, (4, 4, 2)
TX = optax.scale(-1.0)
RATE = 0.125  # a power of two: it rounds nothing
L2 = 0.25
TOLERANCE = 1e-10
DROPPING: dict[str, Any] = {"drop_path": 0.5, "head_dropout": 0.5}
EVERYTHING = UpdateSettings(accumulate_steps=2, ema_decay=0.5, l2=L2)


@pytest.fixture(scope="module", autouse=True)
def in_float64(quick_compilation):
    with jax.enable_x64(True):
        yield


def batch(number: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"image": rng.normal(size=(BATCH, *SHAPE)), "label": rng.integers(0, CLASSES, BATCH).astype(np.int32)}


def make_model(dtype: str = "float64", **drops: Any) -> ConvMixer:
    return ConvMixer(
        dim=4, depth=1, patch_size=1, kernel_size=3, num_classes=CLASSES, dtype=dtype, param_dtype=dtype, **drops
    )


@functools.cache
def compiled(settings: UpdateSettings, devices: int = 1, dropping: bool = False, dtype: str = "float64") -> Any:
    """Returns the compiled step and the layout of its arguments."""
    grid = make_mesh(devices)
    step = plain_step(
        make_model(dtype, **(DROPPING if dropping else {})),
        TX,
        lambda step: jnp.float32(RATE),
        take=lambda data, batch: batch,
        augment=lambda key, images: images.astype(dtype),
        settings=settings,
    )
    state = jax.eval_shape(lambda: first_state(settings, dtype))
    program = jit_once(step, grid).lower(state, np.uint32(0), {}, batch(), np.int32(1)).compile()
    return program, program.input_shardings[0]


def first_state(settings: UpdateSettings, dtype: str = "float64") -> TrainState:
    return random_state(make_model(dtype), TX, SHAPE, with_ema=settings.ema_decay > 0)


def update(
    settings: UpdateSettings, state: TrainState, examples: Any = None, seed: int = 0, **which: Any
) -> TrainState:
    """Returns the state after one update, on the host."""
    program, layout = compiled(settings, **which)
    arguments = jax.device_put((state, np.uint32(seed), {}, examples or batch(), np.int32(1)), layout)
    after, _ = program(*arguments)
    return jax.device_get(after)


def assert_close(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=tolerance * np.abs(leaf).max(), err_msg=name)


def test_everything_at_once_is_the_same_on_1_and_8_devices():
    start = first_state(EVERYTHING)
    one, eight = (update(EVERYTHING, start, devices=devices, dropping=True) for devices in (1, 8))
    for name in ("params", "batch_stats", "ema"):
        assert_close(getattr(eight, name), getattr(one, name))
    before, after = leaves(start.variables("raw")), leaves(one.variables("raw"))
    assert all(np.abs(after[name] - before[name]).max() > 1e-4 for name in before), "else equality means nothing"
    assert int(eight.report.top1) == int(one.report.top1)
    assert float(eight.report.loss) == pytest.approx(float(one.report.loss), rel=1e-6)  # of float32


def test_micro_batches_send_only_sums_and_each_device_keeps_its_examples():
    program, _ = compiled(EVERYTHING, devices=8, dropping=True)
    # The largest thing that all devices sum is a gradient: 3 * 3 * 4 numbers of the depthwise kernel. A batch of
    # images has 1024, one device's part of it 128, and that of a micro-batch 64.
    names, sizes = zip(*sent(program.as_text()), strict=True)
    assert (set(names), max(sizes)) == ({"all-reduce"}, 36)
    one, _ = compiled(EVERYTHING, devices=1, dropping=True)
    assert sent(one.as_text()) == []


def test_top1_and_loss_of_micro_batches_are_of_the_whole_batch():
    # Were the logits of four micro-batches joined in another order, they would be counted at others' labels.
    settings = UpdateSettings(accumulate_steps=4, ema_decay=0.0, l2=0.0)
    examples, state = batch(), first_state(settings)
    after = update(settings, state, examples)
    apply = jax.jit(functools.partial(make_model().apply, train=True, mutable=["batch_stats"]))
    variables, right, losses = state.variables("raw"), 0, []
    for m in range(4):
        logits, updated = apply(variables, examples["image"][m::4])
        variables = {**variables, **updated}
        label = examples["label"][m::4]
        right += int((logits.argmax(1) == label).sum())
        losses.append(float(optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()))
    assert 0 < right < BATCH
    assert (int(after.report.top1), int(after.report.examples), int(after.report.updates)) == (right, BATCH, 1)
    assert float(after.report.loss) / BATCH == pytest.approx(np.mean(losses), rel=1e-6)  # the sum is float32
    # The running statistics went through all four, one after the other.
    assert_close(after.batch_stats, variables["batch_stats"])


AVERAGED = UpdateSettings(accumulate_steps=1, ema_decay=0.4, l2=0.0)
UPDATES = 10
SPOILT = 6


@functools.cache
def averaged_run(settings: UpdateSettings) -> list[TrainState]:
    """Returns the states 0 to 10, in float32; the images of update 6 are not finite."""
    states = [first_state(settings, "float32")]
    for n in range(UPDATES):
        examples = batch(n)
        if n == SPOILT:
            examples["image"][3, 0, 0, 0] = np.nan
        states.append(update(settings, states[-1], examples, dtype="float32"))
    return states


def test_the_moving_average_is_that_of_the_states_so_far():
    states = averaged_run(AVERAGED)
    wide = [jax.tree.map(np.float64, state.variables("raw")) for state in states]
    average = wide[0]
    for n in range(UPDATES):
        # (1 + n) / (10 + n) rises from 0.1 to 0.4 at n = 5, which is the decay from then on.
        decay = [0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 0.4, 0.4, 0.4, 0.4][n]
        if n != SPOILT:
            average = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, average, wide[n + 1])
        # Each update rounds a few times, an ulp in all, and of older errors four tenths remain.
        assert_close(states[n + 1].variables("ema"), average, tolerance=4 * 2.0**-24)
    assert {leaf.dtype for leaf in jax.tree.leaves(states[-1].ema)} == {np.dtype("float32")}


def test_an_update_that_is_not_finite_leaves_the_average():
    states = averaged_run(AVERAGED)
    before, after, later = states[SPOILT], states[SPOILT + 1], states[SPOILT + 2]
    assert (int(after.step), int(after.skipped_in_a_row)) == (SPOILT + 1, 1)
    assert bits((after.params, after.batch_stats, after.ema)) == bits((before.params, before.batch_stats, before.ema))
    assert all(bits(later.ema)[name] != value for name, value in bits(after.ema).items())


def test_without_an_average_the_state_has_none_and_the_rest_has_the_same_bits():
    with_average, without = (averaged_run(settings) for settings in (AVERAGED, PLAIN))
    for kept, plain in zip(with_average, without, strict=True):
        assert plain.ema == {}
        assert bits(kept.replace(ema={})) == bits(plain)


def test_averages_begin_as_the_parameters_in_memory_of_their_own():
    # Not compiled: a compiled program gives every result a buffer of its own.
    state = create_state(0, make_model("float32"), TX, SHAPE, with_ema=True)
    assert bits(state.variables("ema")) == bits(state.variables("raw"))
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers), "a donated state must not name one buffer twice"
    with pytest.raises(ValueError, match="no variables 'ema'"):
        state.replace(ema={}).variables("ema")
    with pytest.raises(ValueError, match="no variables 'best'"):
        state.variables("best")


def test_the_penalty_pulls_at_kernels_alone_and_is_not_in_the_loss():
    start = first_state(PLAIN)
    plain, penalised = (update(settings, start) for settings in (PLAIN, UpdateSettings(1, 0.0, L2)))
    expected = jax.tree.map(
        lambda leaf, old: leaf - RATE * 2 * L2 * old * (np.ndim(old) > 1), plain.params, start.params
    )
    assert_close(penalised.params, expected)
    assert {name.split("'")[3] for name in leaves(start.params)} == {"kernel", "bias", "scale"}
    for name, leaf in leaves(penalised.params).items():
        assert np.array_equal(leaf, leaves(plain.params)[name]) == ("kernel" not in name), name
    assert (penalised.report.loss, penalised.report.top1) == (plain.report.loss, plain.report.top1)


def test_dropout_is_keyed_by_seed_and_step():
    def after(seed: int, step: int, dropping: bool = True) -> Any:
        state = first_state(EVERYTHING).replace(step=np.int32(step))
        return bits(update(EVERYTHING, state, seed=seed, dropping=dropping).params)

    result = after(7, 3)
    assert after(7, 3) == result, "the same seed and step"
    assert after(8, 3) != result, "another seed"
    assert after(7, 4) != result, "another step"
    # The other side: what differed came from these draws alone.
    assert after(7, 3, dropping=False) == after(8, 4, dropping=False)


def test_each_micro_batch_has_draws_of_its_own():
    # Two micro-batches of the same examples, each pair of them side by side.
    half = batch()["image"][: BATCH // 2]
    images, targets = np.repeat(half, 2, axis=0), np.tile([1.0, 0, 0], (BATCH, 1))
    settings = UpdateSettings(accumulate_steps=2, ema_decay=0.0, l2=0.0)
    same = []
    for drops in ({}, DROPPING):
        step = jax.jit(make_update(make_model(**drops), TX, lambda step: RATE, settings, no_gather))
        logits = step(first_state(settings), images, targets, jax.random.key(0))[1]["logits"]
        same.append(np.isclose(logits[0::2], logits[1::2], rtol=0, atol=1e-9).all(axis=1).mean())
    assert same[0] == 1
    # Draws of stochastic depth agree for half of the examples, the head's four for a sixteenth: 1/32 on average.
    assert same[1] < 0.5
