"""Trains the PyTorch reference by one of our recipes, to put its accuracy and speed beside ours.

    python -m tests.reference.train_torch --config configs/cifar10_fast.py --config.epochs=5

Takes the flags of convmixer_jax.main. Same initial weights, order of examples, schedule and decay as our run; crops,
flips and torchvision's RandAugment (with Pillow) are of the same kind but drawn by NumPy. Prints one JSON object with
top1, loss, n, images_per_sec, seconds, and the same of every epoch.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from PIL import Image

from convmixer_jax.benchmarks.pillow_ops import torchvision_style
from convmixer_jax.benchmarks.torch_model import make_adamw
from convmixer_jax.command_line import parse
from convmixer_jax.data.datasets import Examples, load_split
from convmixer_jax.data.order import batch_indices
from convmixer_jax.training.assembly import Experiment, assemble
from tests.reference.torch_convmixer import TorchConvMixer, load_variables


def augment(images: np.ndarray, config: ConfigDict, draw: np.random.Generator) -> np.ndarray:
    """Pads, crops, mirrors, and applies RandAugment to uint8 [B, H, W, C] as the recipe says; refuses the others."""
    for name in config.augment.order:
        if name == "pad_and_crop":
            pixels, (_, height, width, _) = config.augment.pad_and_crop.pixels, images.shape
            margins = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
            if config.augment.pad_and_crop.mode == "reflect":
                padded = np.pad(images, margins, mode="reflect")
            else:
                padded = np.pad(images, margins)
            corners = draw.integers(0, 2 * pixels + 1, (len(images), 2))
            images = np.stack([i[y : y + height, x : x + width] for i, (y, x) in zip(padded, corners, strict=True)])
        elif name == "horizontal_flip":
            flip = draw.random(len(images)) < config.augment.horizontal_flip.probability
            images = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
        elif name == "rand_augment" and config.augment.rand_augment.tables == "torchvision":
            num_ops, magnitude = config.augment.rand_augment.num_ops, int(config.augment.rand_augment.magnitude)
            changed = [torchvision_style(draw, Image.fromarray(image), num_ops, magnitude) for image in images]
            images = np.stack([np.asarray(image) for image in changed])
        else:
            raise SystemExit(f"{name} has no counterpart here")
    return images


def to_tensor(images: np.ndarray, experiment: Experiment) -> torch.Tensor:
    """Normalises uint8 [B, H, W, C] to float32 [B, C, H, W] in channels-last memory, PyTorch's fastest on CPUs."""
    config, dataset = experiment.config, experiment.dataset
    mean, std = np.asarray(config.mean or dataset.mean, "f4"), np.asarray(config.std or dataset.std, "f4")
    return torch.from_numpy((images.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)


def make_model(experiment: Experiment) -> TorchConvMixer:
    config, shape = experiment.config, experiment.config.model
    model = TorchConvMixer(
        shape.dim, shape.depth, shape.patch_size, shape.kernel_size, experiment.dataset.num_classes, shape.activation
    )
    state = experiment.init_state(np.uint32(config.seed))
    load_variables(model, {"params": state.params, "batch_stats": state.batch_stats})
    return model.to(memory_format=torch.channels_last)


def make_optimizer(model: TorchConvMixer, config: ConfigDict) -> torch.optim.AdamW:
    settings = {name: value for name, value in config.optimizer.items() if name not in ("name", "clip_norm")}
    return make_adamw(model, rate=1.0, fused=False, **settings)


def train(
    model: TorchConvMixer,
    experiment: Experiment,
    examples: Examples,
    after_epoch: Callable[[float], None] | None = None,
) -> float:
    """Makes all updates of the recipe; returns their wall seconds.

    after_epoch: is given the epoch's mean training loss; its time is not counted.
    """
    config, draw = experiment.config, np.random.default_rng(experiment.config.seed)
    optimizer = make_optimizer(model, config)
    model.train()
    began, losses = time.monotonic(), []
    for step in range(experiment.total_steps):
        for group in optimizer.param_groups:
            group["lr"] = float(experiment.schedule(step))
        indices = batch_indices(config.seed, step, config.batch_size, len(examples))
        images = to_tensor(augment(examples.image[indices], config, draw), experiment)
        logits = model(images)
        labels = torch.from_numpy(examples.label[indices]).long()
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % experiment.steps_per_epoch == 0 and after_epoch:
            paused = time.monotonic()
            after_epoch(float(np.mean(losses)))
            model.train()
            began, losses = began + time.monotonic() - paused, []
        if (step + 1) % config.report_every_steps == 0:
            pace = (step + 1) * config.batch_size / (time.monotonic() - began)
            print(f"step {step + 1}/{experiment.total_steps}  loss {loss:.4f}  {pace:.0f} images/s", file=sys.stderr)
    return time.monotonic() - began


@torch.no_grad()
def evaluate(model: TorchConvMixer, experiment: Experiment, examples: Examples) -> dict[str, Any]:
    """Returns n, top1 and loss over all examples."""
    model.eval()
    correct, loss = 0, 0.0
    for start in range(0, len(examples), experiment.config.batch_size):
        part = slice(start, start + experiment.config.batch_size)
        logits = model(to_tensor(examples.image[part], experiment))
        labels = torch.from_numpy(examples.label[part]).long()
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return {"n": len(examples), "top1": correct / len(examples), "loss": loss / len(examples)}


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the command line; returns what it prints."""
    arguments = parse(argv)
    config = arguments.config
    experiment = assemble(config)
    fractions = (config.val_fraction, config.train_examples)
    examples = load_split(experiment.dataset, "train", arguments.data_dir, *fractions)
    test = load_split(experiment.dataset, "test", arguments.data_dir, *fractions)
    model, epochs = make_model(experiment), []

    def after_epoch(train_loss: float) -> None:
        epochs.append({"train_loss": train_loss} | evaluate(model, experiment, test))
        print(f"epoch {len(epochs)}  {epochs[-1]}", file=sys.stderr)

    seconds = train(model, experiment, examples, after_epoch)
    result = {name: epochs[-1][name] for name in ("n", "top1", "loss")} | {"epochs": epochs}
    images = experiment.total_steps * config.batch_size
    result |= {"images_per_sec": images / seconds, "seconds": seconds, "threads": torch.get_num_threads()}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv)
