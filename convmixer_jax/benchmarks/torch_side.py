"""PyTorch's side of a comparison: the authors' model trained, or evaluated, on the same batch in one of its modes.

    side = build_torch(config, FixedBatch(0, 0), "compiled-nhwc-float32", training=True, platform="cpu")
    side.run(10)                       # ten updates, waited for

PyTorch is imported only where a side is built, in a process of its own. It has all cores, and what is known to make
it quick: the fused optimiser, TF32 products where JAX has them too, the quickest of cuDNN's algorithms.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import operator
import shutil
import time
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import FixedBatch, eval_size, random_batch
from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.data.datasets import named_dataset
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.measuring.machine import usable_cores

DEVICES = {"cpu": "cpu", "gpu": "cuda"}  # by JAX's name of the platform

# What the update here can do; other values have no counterpart in it.
COMPARABLE: dict[str, Any] = {
    "model.variant": "convmixer",
    "model.bn_group_size": 0,
    "model.drop_path": 0.0,
    "model.head_dropout": 0.0,
    "optimizer.name": "adamw",
    "accumulate_steps": 1,
    "ema_decay": 0.0,
    "l2": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Mode:
    """How PyTorch computes. dtype: bfloat16 is by autocast, which keeps parameters in float32, as we do."""

    compiled: bool
    channels_last: bool
    dtype: str

    @property
    def name(self) -> str:
        """What the flag --modes and the table call it."""
        return f"{'compiled' if self.compiled else 'eager'}-{'nhwc' if self.channels_last else 'nchw'}-{self.dtype}"


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in itertools.starmap(Mode, itertools.product((False, True), (False, True), ("float32", "bfloat16")))
}


def check_installed() -> None:
    """Raises UserError where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("--against torch: PyTorch is not installed; pip install -r requirements-test.txt brings it")


def check_comparable(config: ConfigDict) -> None:
    """Raises UserError where PyTorch is missing, or where its update would not do what the config says."""
    check_installed()
    for name, value in COMPARABLE.items():
        found = functools.reduce(operator.getitem, name.split("."), config)
        if found != value:
            raise UserError(
                f"config.{name} is {found!r}: --against torch has no counterpart; set --config.{name}={value}"
            )


class TorchSide:
    """See workers.Side."""

    def __init__(self, once: Callable[[], None], images: int, mode: Mode, wait: Callable[[], None], peak: Any):
        """Calls `once` a first time, which compiles where the mode does.

        wait: for the device. peak: returns the most device memory, None where it is the host's.
        """
        self.once, self.images, self.wait, self.device_peak_bytes = once, images, wait, peak
        began = time.perf_counter()
        self.run(1)
        seconds = time.perf_counter() - began if mode.compiled else None
        self.facts = {"dtype": mode.dtype, "compile_seconds": seconds, "version": importlib.metadata.version("torch")}

    def run(self, count: int) -> None:
        """Runs `count` times and waits for all."""
        for _ in range(count):
            self.once()
        self.wait()


def make_update(model: Any, config: ConfigDict, images: Any, targets: Any, autocast: Any) -> Callable[[], None]:
    """Returns a function that makes one update of the model on the batch, as ours does; nothing comes back."""
    import torch

    from convmixer_jax.benchmarks.torch_model import make_adamw

    settings = config.optimizer.to_dict()
    clip_norm, _ = settings.pop("clip_norm"), settings.pop("name")
    optimizer = make_adamw(model, rate=config.schedule.learning_rate, fused=True, **settings)
    parameters = list(model.parameters())

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()

    return update


def make_forward(model: Any, images: Any, autocast: Any) -> Callable[[], None]:
    """Returns a function that computes the logits of the batch by running statistics."""
    import torch

    def forward() -> None:
        with torch.inference_mode(), autocast():
            model(images)

    return forward


def import_torch() -> Any:
    """Returns the module; raises UnavailableError where the PyTorch that there is cannot be imported."""
    try:
        import torch
    except Exception as error:  # a library that is missing, a version that does not fit: anything
        told, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(f"PyTorch cannot be imported: {told}") from error
    return torch


def prepare_torch(device: str) -> None:
    """Lets PyTorch have all cores, and what is known to make it quick. Raises UserError where it has no such device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--against torch: this PyTorch sees no GPU, where ours runs; install one that does")
    torch.set_num_threads(usable_cores())
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs, as JAX has it by default; nothing on a CPU
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)


def build_torch(config: ConfigDict, fixed: FixedBatch, mode_name: str, training: bool, platform: str) -> TorchSide:
    """Returns the update, or the evaluation, of one batch in the mode, a row of MODES.

    platform: where ours runs, as JAX calls it. Raises UserError where PyTorch cannot run there, UnavailableError
    where it cannot be imported or cannot compile.
    """
    torch = import_torch()
    from convmixer_jax.benchmarks.torch_model import ACTIVATIONS, ConvMixer

    mode = lookup(MODES, mode_name, "--modes")
    device = lookup(DEVICES, platform, "--against torch: the platform")
    prepare_torch(device)
    dataset = fixed.of(named_dataset(config.dataset, "config.dataset"))
    sizes = {name: config.model[name] for name in ("dim", "depth", "patch_size", "kernel_size")}
    model: Any = ConvMixer(
        channels=dataset.image_shape[-1],
        num_classes=dataset.num_classes,
        activation=ACTIVATIONS[config.model.activation],
        **sizes,
    )
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout).train(training)
    batch = random_batch(dataset, config.batch_size if training else eval_size(config))
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).to(device).contiguous(memory_format=layout)
    targets = torch.from_numpy(batch["target"]).to(device)

    autocast: Any = contextlib.nullcontext
    if mode.dtype == "bfloat16":
        autocast = functools.partial(torch.autocast, device, torch.bfloat16)
    if mode.compiled:
        model = compiled_model(model, device)
    once = make_update(model, config, images, targets, autocast) if training else make_forward(model, images, autocast)
    on_gpu = device == "cuda"
    wait, peak = (torch.cuda.synchronize, torch.cuda.max_memory_allocated) if on_gpu else (lambda: None, lambda: None)
    try:
        return TorchSide(once, len(images), mode, wait, peak)
    except Exception as error:
        if not mode.compiled:
            raise
        # Its own complaint may be a page long: no header files of Python, say.
        raise UnavailableError(f"torch.compile failed: {str(error).strip().splitlines()[0]}") from error


def compiled_model(model: Any, device: str) -> Any:
    """Returns torch.compile's; raises UnavailableError where it has no compiler for what it writes."""
    import torch

    if device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise UnavailableError("torch.compile needs a C++ compiler; there is no g++ or clang++")
    return torch.compile(model)
