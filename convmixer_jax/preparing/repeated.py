"""Images that a data set has more than once, where that does harm: under two labels, or to train and to test on.

lines = repeated([Fingerprints("train", sha1, label, called), ...], class_names)
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

HASH_BYTES = 20  # SHA-1


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """Of a split: sha1 uint8 [N, 20], 0 where an image could not be read; label int32 [N]; called: names by index."""

    split: str
    sha1: np.ndarray
    label: np.ndarray
    called: Callable[[int], str]


def repeated(splits: Sequence[Fingerprints], class_names: Sequence[str]) -> list[str]:
    """Returns a line on each image that is there under several labels or in several splits."""
    sha1 = np.concatenate([each.sha1 for each in splits])
    keys = np.ascontiguousarray(sha1).view(f"S{HASH_BYTES}")[:, 0]
    known = np.flatnonzero(sha1.any(axis=1))
    order = known[np.argsort(keys[known], kind="stable")]
    changes = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    groups = [group for group in np.split(order, changes) if len(group) > 1]
    return [line for group in sorted(groups, key=min) if (line := _line(splits, group, class_names))]


def _line(splits: Sequence[Fingerprints], group: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns what is to be told of one image that is there several times, "" where that does no harm."""
    starts = np.cumsum([0, *(len(each.label) for each in splits)])
    places, labels, found_in = [], set(), set()
    for row in group.tolist():
        part = int(np.searchsorted(starts, row, side="right")) - 1
        split, index = splits[part], row - int(starts[part])
        label = int(split.label[index])
        places.append(f"{split.called(index)} ({class_names[label]})")
        labels.add(label)
        found_in.add(split.split)
    if len(labels) > 1:
        return f"warning: one image under {len(labels)} labels: {', '.join(places)}"
    if len(found_in) > 1:
        return f"warning: one image in {' and '.join(sorted(found_in))}: {', '.join(places)}"
    return ""
