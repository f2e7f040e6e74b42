"""The table of preparations: how each data set is made ready.

prepare(Request("cifar10", data_dir))
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from convmixer_jax.data.datasets import is_found, named_dataset
from convmixer_jax.data.examples import EncodedImages
from convmixer_jax.data.sources.cifar_specs import CIFAR10, CIFAR100, CIFAR100_COARSE
from convmixer_jax.data.sources.tiny_imagenet import TINY_IMAGENET
from convmixer_jax.errors import UserError
from convmixer_jax.preparing.checked import examine, prepare_cifar
from convmixer_jax.preparing.decoded import prepare_tiny_imagenet, source_of_tiny_imagenet
from convmixer_jax.preparing.requests import Request


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a data set is made ready.

    prepare: does so, tells what there is, and raises UserError. archive: what --from may name, "" for nothing.
    source: (data_dir, split) to the encoded images, None for nowhere, of a data set that is decoded into arrays; None
    for one that is not.
    """

    prepare: Callable[[Request], None]
    archive: str = ""
    source: Callable[[Path, str], EncodedImages | None] | None = None


# By the names of DATASETS and the kinds of OPENERS: those for which it takes more than a look at both splits.
PREPARATIONS: dict[str, Preparation] = {
    "cifar10": Preparation(functools.partial(prepare_cifar, spec=CIFAR10), CIFAR10.archive),
    "cifar100": Preparation(functools.partial(prepare_cifar, spec=CIFAR100), CIFAR100.archive),
    "cifar100_coarse": Preparation(functools.partial(prepare_cifar, spec=CIFAR100_COARSE), CIFAR100_COARSE.archive),
    "tiny_imagenet": Preparation(
        prepare_tiny_imagenet,
        f"{TINY_IMAGENET.archive}, or the folder that it holds, which is read where it is",
        source_of_tiny_imagenet,
    ),
}


def find_preparation(name: str) -> Preparation:
    """Returns how the data set called `name` is made ready. Raises UserError, listing what there is, without one."""
    if not is_found(name):
        named_dataset(name, "NAME")
    return PREPARATIONS.get(name.partition(":")[0], Preparation(examine))


def prepare(request: Request) -> None:
    """Makes a data set ready. Raises UserError."""
    row = find_preparation(request.name)
    if request.archive is not None and not row.archive:
        raise UserError(f"--from is {request.archive}: {request.name} is made from no archive; leave it out")
    row.prepare(request)
