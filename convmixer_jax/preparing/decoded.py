"""Data sets of small image files, which are decoded once before the first run.

prepare_tiny_imagenet(Request("tiny_imagenet", data_dir))
"""

from collections.abc import Mapping
from pathlib import Path

from convmixer_jax.data.examples import EncodedImages, Stored
from convmixer_jax.data.sources.download import fetch
from convmixer_jax.data.sources.prepared import (
    archive_facts,
    check_same_images,
    is_unchanged,
    load_prepared,
    prepared_folder,
    read_record,
    way_out,
)
from convmixer_jax.data.sources.publishing import one_at_a_time
from convmixer_jax.data.sources.tiny_imagenet import (
    TINY_IMAGENET,
    TinyImageNetSpec,
    find_tiny_imagenet,
    read_tiny_imagenet,
)
from convmixer_jax.errors import UserError
from convmixer_jax.preparing.archives import archive_md5, take_archive
from convmixer_jax.preparing.decoding import decode
from convmixer_jax.preparing.descriptions import describe
from convmixer_jax.preparing.requests import Request
from convmixer_jax.runs.progress import show, tell

SPLITS = ("train", "test")
# Of the archive, as other programs that download it have it; its own host publishes none. A download must agree. Files
# of the same content that somebody packed anew have another, so an archive that is given is only told about: all of
# its lists, names, counts and checksums are looked at anyway.
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def prepare_tiny_imagenet(
    request: Request, spec: TinyImageNetSpec = TINY_IMAGENET, md5: str = TINY_IMAGENET_MD5
) -> None:
    """Decodes both splits into arrays, unless that was done: from --from, what data_dir has, or a download.

    Raises UserError where the images are not as published or not those of the arrays that are there.
    """
    folder = prepared_folder(request.data_dir, request.name)
    if _is_ready(request, folder, _place(request, spec), spec):
        return
    place = _brought(request, spec, md5)
    images = {split: read_tiny_imagenet(place, split, spec) for split in SPLITS}
    try:
        with one_at_a_time(folder, f"waiting for another process that is making {folder}"):
            if not _is_ready(request, folder, place, spec):  # another process may have made it meanwhile
                decode(folder, images, archive_facts(place))
                _tell(request, folder, images, spec, "")
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): choose another --data_dir") from error


def source_of_tiny_imagenet(data_dir: Path, split: str, spec: TinyImageNetSpec = TINY_IMAGENET) -> EncodedImages | None:
    """Returns the image files of a split that data_dir has, None where it has none. Raises UserError."""
    place = find_tiny_imagenet(data_dir, spec)
    return None if place is None else read_tiny_imagenet(place, split, spec)


def _place(request: Request, spec: TinyImageNetSpec) -> Path | None:
    """Returns where the images are: at --from, or in data_dir; None for nowhere."""
    given = request.archive
    if given is None:
        return find_tiny_imagenet(request.data_dir, spec)
    return given / spec.folder if (given / spec.folder).is_dir() else given


def _is_ready(request: Request, folder: Path, place: Path | None, spec: TinyImageNetSpec) -> bool:
    """Whether the arrays are there, and then says so. Raises UserError where they are of other images, or damaged."""
    if request.force or not folder.is_dir():
        return False
    way = way_out(request.name, request.data_dir)
    splits = {split: load_prepared(folder, split, way) for split in SPLITS}
    if place is not None and not is_unchanged(folder, place):
        for split in SPLITS:
            check_same_images(folder, split, read_tiny_imagenet(place, split, spec), place, way)
    _tell(request, folder, splits, spec, " already: nothing to do")
    return True


def _tell(request: Request, folder: Path, splits: Mapping[str, Stored], spec: TinyImageNetSpec, end: str) -> None:
    record = read_record(folder)
    assert record is not None  # it has just been written, or read
    lines = [describe(split, each, spec.classes, record.splits[split].source) for split, each in splits.items()]
    show("\n".join([*lines, f"{request.name} is ready in {folder}{end}"]))


def _brought(request: Request, spec: TinyImageNetSpec, md5: str) -> Path:
    """Returns where the images are; stores the archive that is given, or downloads it. Raises UserError."""
    place, archive = _place(request, spec), request.data_dir / spec.archive
    if place is None:
        fetch([spec.url], archive, md5, spec.name)
        return archive
    if request.archive is None or place.is_dir():
        return place
    if (found := archive_md5(place)) != md5:
        tell(f"warning: --from {place} has the md5 {found}, not {md5}: packed by somebody else? Its content is checked")
    for split in SPLITS:
        read_tiny_imagenet(place, split, spec)  # before it is stored
    take_archive(place, archive, request.force)
    return archive
