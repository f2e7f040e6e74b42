"""Which files of a folder are the shards of a split, as TensorFlow's scripts name them.

shards, kind = find_shards([data_dir / "imagenet"], ["validation", "val"])      # kind: a row of KINDS
"""

import re
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.data.sources.folders import check_same, names_in

# train-00000-of-01024, imagenet2012-train.array_record-00000-of-00256, train-00000-of-01024.tfrecord
_SHARD = re.compile(
    r"(?P<start>(?:.*?[-_.])??(?P<split>[a-z]+)(?:\.(?P<kind>tfrecord|array_record))?)"
    r"-\d{5}-of-(?P<count>\d{5})(?P<end>(?:\.(?P<kind_at_end>tfrecord|array_record))?)"
)
_WAY_OUT = "put there what is missing, and keep the shards of one set only"


def find_shards(folders: Sequence[Path], splits: Sequence[str]) -> tuple[list[Path], str] | None:
    """Returns the shards of a split in their order, and their kind; None where there are none.

    folders: where they may lie, all in one; those that do not exist are passed over. splits: what the split may be
    called. TFRecord files, which names without a kind are taken for, come before ArrayRecord files.
    Raises UserError where shards are missing, or two sets lie in one folder.
    """
    for folder in filter(Path.is_dir, folders):
        matches = [match for name in names_in(folder, _WAY_OUT) if (match := _SHARD.fullmatch(name))]
        of_split = [match for match in matches if match["split"] in splits]
        for kind in ("tfrecord", "array_record"):
            if shards := [match for match in of_split if _kind(match) == kind]:
                return _complete(folder, shards), kind
    return None


def _kind(match: re.Match[str]) -> str:
    return match["kind"] or match["kind_at_end"] or "tfrecord"


def _complete(folder: Path, shards: Sequence[re.Match[str]]) -> list[Path]:
    first = min(shards, key=lambda match: match[0])
    count = int(first["count"])
    expected = [f"{first['start']}-{number:05}-of-{count:05}{first['end']}" for number in range(count)]
    check_same(folder, [match[0] for match in shards], expected, _WAY_OUT)
    return [folder / name for name in expected]
