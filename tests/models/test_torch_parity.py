"""The whole update equals PyTorch's: loss, logits, every gradient, running statistics, five steps of AdamW.

Both start from the same weights and see the same batches. An error is measured against the largest value of its own
leaf. No gradient here is zero but for rounding, which would leave that without a scale: a bias just before BatchNorm
would have none, but here an activation stands between, and its slope differs from pixel to pixel.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.prepare import smooth_targets
from convmixer_jax.training.update import UpdateSettings, make_update
from tests.reference.torch_convmixer import (
    MISTAKES,
    TorchConvMixer,
    load_variables,
    read_gradients,
    read_parameters,
    read_statistics,
)
from tests.training.steps import no_gather, random_state

pytestmark = pytest.mark.usefixtures("quick_compilation")

# The tensors are tiny, and threads that wait for one another take seconds where the processors are busy.
torch.set_num_threads(1)

# float64 carries 16 digits and float32 7: sums of some thousand terms, ten layers deep, over five steps, may lose
# five of the former and three of the latter. A mistake in a formula shows at 1e-6 or above (the tanh of GELU).
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
RATES = (0.01, 0.004, 0.02, 0.0, 0.007)  # changing, not monotonic, and once zero, as a schedule may be
CLASSES, BATCH, SMOOTHING = 5, 6, 0.1
CLIP_NORM = 0.1  # below every gradient's norm here, which the test checks
BETAS = (0.85, 0.98)  # not the defaults of either library
WEIGHT_DECAY = 0.3  # large, so that decaying the wrong leaf shows


@dataclasses.dataclass(frozen=True)
class Case:
    """Where the side is no multiple of the patch, pixels are cut off. l2: times the squares of all kernels."""

    depth: int
    kernel_size: int
    patch_size: int
    side: int
    activation: str
    decay_mask: str
    accumulate_steps: int = 1
    l2: float = 0.0

    def settings(self) -> dict[str, Any]:
        return {
            "dim": 8,
            "depth": self.depth,
            "patch_size": self.patch_size,
            "kernel_size": self.kernel_size,
            "num_classes": CLASSES,
            "activation": self.activation,
        }


CASES = [
    Case(depth=2, kernel_size=5, patch_size=2, side=11, activation="gelu", decay_mask="all"),
    Case(depth=2, kernel_size=4, patch_size=1, side=6, activation="gelu", decay_mask="kernels"),
    Case(depth=1, kernel_size=3, patch_size=3, side=11, activation="relu", decay_mask="kernels"),
    Case(depth=1, kernel_size=2, patch_size=2, side=9, activation="relu", decay_mask="all"),
    Case(
        depth=1, kernel_size=3, patch_size=2, side=6, activation="gelu", decay_mask="all", accumulate_steps=3, l2=0.02
    ),
]
EVEN_GELU = CASES[1]  # where each of the planted mistakes changes something
ACCUMULATED = CASES[-1]


def epsilon(dtype: str) -> float:
    """Returns Adam's.

    Adam divides a gradient by its size: where an element's gradient is small the rounding error d of the largest
    moves it by rate x d / epsilon. With d near 1e-17 (float64) epsilon may be 1e-8, the CIFAR script's; with d near
    1e-8 (float32) that would be the rate itself, so it is 1e-3, the ImageNet recipe's.
    """
    return {"float64": 1e-8, "float32": 1e-3}[dtype]


def batches(case: Case, dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns images and labels of five updates and, last, of an evaluation."""
    rng = np.random.default_rng(0)
    shape = (BATCH, case.side, case.side, 3)
    return [(rng.normal(size=shape).astype(dtype), rng.integers(0, CLASSES, BATCH)) for _ in range(len(RATES) + 1)]


def recording() -> optax.GradientTransformation:
    """Hands gradients on as they are and keeps them as its state, where the test finds them."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params=None: (grads, grads),
    )


@functools.cache
def run_jax(case: Case, dtype: str) -> dict[str, Any]:
    """Runs the project's own update; returns the weights it started from, what each step gave, and eval logits."""
    with jax.enable_x64(dtype == "float64"):
        model = ConvMixer(**case.settings(), dtype=dtype, param_dtype=dtype)
        adamw = make_optimizer(
            "adamw",
            decay_mask=case.decay_mask,
            clip_norm=CLIP_NORM,
            b1=BETAS[0],
            b2=BETAS[1],
            eps=epsilon(dtype),
            weight_decay=WEIGHT_DECAY,
        )
        tx = optax.chain(recording(), adamw)
        state = random_state(model, tx, (case.side, case.side, 3))
        start = state.variables("raw")

        settings = UpdateSettings(case.accumulate_steps, ema_decay=0.0, l2=case.l2)
        update = jax.jit(make_update(model, tx, lambda step: jnp.asarray(RATES, dtype)[step], settings, no_gather))
        *training, (eval_images, _) = batches(case, dtype)
        steps = []
        for images, labels in training:
            targets = smooth_targets(jnp.asarray(labels), CLASSES, SMOOTHING)
            state, out = update(state, images, targets, jax.random.key(0))
            out |= {"gradients": state.opt_state[0], "batch_stats": state.batch_stats, "params": state.params}
            steps.append(jax.device_get(out))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        evaluate = jax.jit(functools.partial(model.apply, train=False))
        eval_logits = jax.device_get(evaluate(variables, eval_images))
    return {"start": start, "steps": steps, "eval_logits": eval_logits}


def decay_groups(model: TorchConvMixer, decay_mask: str) -> list[dict[str, Any]]:
    """Returns AdamW's parameter groups: all decay, or only the weights of convolutions and of the linear layer."""
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    groups: dict[float, list[torch.Tensor]] = {WEIGHT_DECAY: [], 0.0: []}
    for name, parameter in model.named_parameters():
        module, leaf = name.rsplit(".", 1)
        is_kernel = leaf == "weight" and module not in norms
        groups[WEIGHT_DECAY if decay_mask == "all" or is_kernel else 0.0].append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items() if parameters]


def clip(model: TorchConvMixer) -> torch.Tensor:
    """Scales gradients by min(1, CLIP_NORM / norm) and returns the norm.

    This is the definition (arXiv 1211.5063). torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6, which at these
    norms differs by more than the tolerance of float64.
    """
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    for p in model.parameters():
        p.grad *= torch.clamp(CLIP_NORM / norm, max=1)
    return norm


def backward(model: TorchConvMixer, case: Case, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Leaves the gradients of a batch in the model; returns its loss and logits.

    As PyTorch's users accumulate: micro-batch after micro-batch, each loss divided by their number; here the
    micro-batches are the examples m, m + parts, m + 2 parts, ... for m = 0, 1, ...
    """
    parts, loss, all_logits = case.accumulate_steps, torch.zeros(()), np.zeros((len(images), CLASSES), images.dtype)
    for m in range(parts):
        logits = model(torch.tensor(images[m::parts].transpose(0, 3, 1, 2)))
        micro = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[m::parts]), label_smoothing=SMOOTHING)
        penalty = sum((p**2).sum() for p in model.parameters() if p.ndim > 1)
        ((micro + case.l2 * penalty) / parts).backward()
        loss = loss + micro.detach() / parts
        all_logits[m::parts] = logits.detach().numpy()
    return {"loss": loss.numpy(), "logits": all_logits}


def run_torch(case: Case, dtype: str, start: dict[str, Any], **mistake: Any) -> dict[str, Any]:
    """Returns what `run_jax` does, from PyTorch."""
    model = TorchConvMixer(**case.settings(), **mistake)
    load_variables(model, start)
    adamw = torch.optim.AdamW(decay_groups(model, case.decay_mask), lr=1.0, betas=BETAS, eps=epsilon(dtype))
    *training, (eval_images, _) = batches(case, dtype)
    steps = []
    for rate, (images, labels) in zip(RATES, training, strict=True):
        adamw.zero_grad()
        out = backward(model, case, images, labels) | {"gradients": read_gradients(model)}
        out["grad_norm"] = clip(model).numpy()
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
        steps.append(out | {"batch_stats": read_statistics(model), "params": read_parameters(model)})
    model.eval()
    eval_logits = model(torch.tensor(eval_images.transpose(0, 3, 1, 2))).detach().numpy()
    return {"steps": steps, "eval_logits": eval_logits}


def assert_close(what: str, ours: Any, theirs: Any, dtype: str) -> None:
    """Asserts equal structure and, for each leaf, dtype, shape and every value to the tolerance times the largest."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (ours, theirs)]
    assert structures[0] == structures[1], what
    for (path, got), expected in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        name = what + jax.tree_util.keystr(path)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape) == (dtype, got.shape), name
        scale = np.abs(expected).max()
        error = np.abs(got - expected).max() / scale
        assert error <= TOLERANCES[dtype], f"{name}: off by {error} of {scale}"


def compare(case: Case, dtype: str, **mistake: Any) -> None:
    ours = run_jax(case, dtype)
    theirs = run_torch(case, dtype, ours["start"], **mistake)
    for number, (got, expected) in enumerate(zip(ours["steps"], theirs["steps"], strict=True), start=1):
        assert got["finite"]
        assert got["grad_norm"] > CLIP_NORM
        for what in ("logits", "loss", "grad_norm", "gradients", "batch_stats", "params"):
            assert_close(f"{what} of step {number}", got[what], expected[what], dtype)
    assert_close("eval_logits", ours["eval_logits"], theirs["eval_logits"], dtype)


# In float32 two models say what there is to say.
COMPARED = [*((case, "float64") for case in CASES), (EVEN_GELU, "float32"), (ACCUMULATED, "float32")]


@pytest.mark.parametrize(
    "case, dtype",
    COMPARED,
    ids=[f"k{case.kernel_size}p{case.patch_size}x{case.accumulate_steps}-{dtype}" for case, dtype in COMPARED],
)
def test_five_updates_and_evaluation_equal_pytorch(case, dtype):
    compare(case, dtype)


# Where each mistake shows first.
CAUGHT_BY = {
    "tanh GELU": "logits of step 1",
    "epsilon 1e-3": "logits of step 1",
    "biased running variance": r"batch_stats of step 1\['.*'\]\['var'\]",
    "extra row and column at the start": "logits of step 1",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_caught(mistake):
    with pytest.raises(AssertionError, match=CAUGHT_BY[mistake]):
        compare(EVEN_GELU, "float64", **MISTAKES[mistake])


def test_decaying_other_leaves_is_caught():
    theirs_decays_all = dataclasses.replace(EVEN_GELU, decay_mask="all")
    ours = run_jax(EVEN_GELU, "float64")
    theirs = run_torch(theirs_decays_all, "float64", ours["start"])
    with pytest.raises(AssertionError, match="bias"):
        assert_close("params", ours["steps"][0]["params"], theirs["steps"][0]["params"], "float64")


OTHERWISE = {
    "whole batch": {"accumulate_steps": 1},
    "other micro-batches": {"accumulate_steps": 2},
    "l2": {"l2": 0.021},
}


@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=OTHERWISE)
def test_another_way_to_take_the_gradient_is_caught(changes):
    ours = run_jax(ACCUMULATED, "float64")
    theirs = run_torch(dataclasses.replace(ACCUMULATED, **changes), "float64", ours["start"])
    with pytest.raises(AssertionError, match="gradients"):
        assert_close("gradients", ours["steps"][0]["gradients"], theirs["steps"][0]["gradients"], "float64")
