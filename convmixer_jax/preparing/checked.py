"""Data sets that are used as they are published: brought, where that can be, and checked.

prepare_cifar(Request("cifar10", data_dir), CIFAR10)
examine(Request("folder:photos", data_dir))
"""

from convmixer_jax.data.datasets import DATASETS, Dataset, find_dataset, open_split
from convmixer_jax.data.sources.cifar_specs import CifarSpec
from convmixer_jax.errors import UserError
from convmixer_jax.preparing.archives import check_archive, take_archive
from convmixer_jax.preparing.descriptions import describe
from convmixer_jax.preparing.receipts import file_facts, remember, remembered
from convmixer_jax.preparing.requests import Request
from convmixer_jax.runs.progress import show, tell


def splits_described(dataset: Dataset, request: Request) -> list[str]:
    """Opens both splits, which checks them, and returns a line on each. Raises UserError."""
    splits = {split: open_split(dataset, split, request.data_dir) for split in ("train", "test")}
    return [describe(split, stored, dataset.class_names, stored.digest()) for split, stored in splits.items()]


def examine(request: Request) -> None:
    """Opens both splits of a data set that needs nothing else, and tells what there is. Raises UserError."""
    lines = splits_described(find_dataset(request.name, request.data_dir), request)
    show("\n".join([*lines, f"{request.name} is ready: nothing has to be made"]))


def prepare_cifar(request: Request, spec: CifarSpec) -> None:
    """Takes or downloads the archive unless the data are there, reads both splits whole, and leaves a receipt.

    Raises UserError for an archive that is not the published one, and for data that are not whole.
    """
    data_dir = request.data_dir
    if request.archive:
        check_archive(request.archive, spec.md5)
        take_archive(request.archive, data_dir / spec.archive, request.force)
        for first in (spec.python_folder, spec.binary_folder):
            if (data_dir / first).exists():
                tell(f"warning: {data_dir / first} is there, too, and is what will be read")
    places = [spec.python_folder, spec.binary_folder, spec.archive, spec.tfds_name]
    try:
        facts = file_facts(data_dir, places)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): use another --data_dir") from error
    if not request.force and (lines := remembered(data_dir, request.name, facts)):
        show("\n".join([*lines, f"{request.name} is ready in {data_dir} already: nothing to do"]))
        return
    lines = splits_described(DATASETS[request.name], request)
    show("\n".join([*lines, f"{request.name} is ready in {data_dir}"]))
    try:
        remember(data_dir, request.name, file_facts(data_dir, places), lines)
    except OSError as error:
        tell(f"warning: no receipt is left ({error.filename}: {error.strerror}): the next time checks it all again")
