"""Where the features of a serialised tf.train.Example lie, without TensorFlow and without a copy.

    features = find_features(record)
    start, stop = bytes_range(record, features["image/encoded"])
    label = whole_number(record, features["image/class/label"])

Reads the wire format of protocol buffers (protobuf.dev/programming-guides/encoding) as far as Example uses it:
Example {Features features = 1}, Features {map<string, Feature> feature = 1}, Feature {oneof BytesList = 1,
FloatList = 2, Int64List = 3}, each list {repeated value = 1}.
"""

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_KINDS = {1: "bytes", 2: "floats", 3: "whole numbers"}


class Feature(NamedTuple):
    """The list of values of a feature: its kind, "bytes", "floats" or "whole numbers", and its range in the record."""

    kind: str
    start: int
    stop: int


def find_features(record: bytes) -> dict[str, Feature]:
    """Returns the features of `record` by name; one without a value is left out. Raises ValueError for no Example."""
    features = {}
    for start, stop in _messages(record, 0, len(record), 1):
        for entry in _messages(record, start, stop, 1):
            name, found = "", None
            for number, wire, begin, end in _fields(record, *entry):
                if (number, wire) == (1, _LENGTH):
                    name = record[begin:end].decode("utf-8")
                elif (number, wire) == (2, _LENGTH):
                    found = _feature(record, begin, end)
            if found:
                features[name] = found
    return features


def bytes_range(record: bytes, feature: Feature) -> tuple[int, int]:
    """Returns where in `record` the one value of a feature of bytes lies. Raises ValueError for another feature."""
    ranges = list(_messages(record, feature.start, feature.stop, 1))
    if feature.kind != "bytes" or len(ranges) != 1:
        raise ValueError(f"{len(ranges)} {feature.kind}, not bytes once")
    return ranges[0]


def whole_number(record: bytes, feature: Feature) -> int:
    """Returns the one value of a feature of whole numbers, int64. Raises ValueError for another feature."""
    values: list[int] = []
    if feature.kind == "whole numbers":
        for number, wire, begin, end in _fields(record, feature.start, feature.stop):
            while number == 1 and wire in (_VARINT, _LENGTH) and begin < end:  # one by one, or packed
                value, begin = _varint(record, begin)
                values.append(value - (1 << 64) if value >= 1 << 63 else value)
    if len(values) != 1:
        raise ValueError(f"{len(values) or feature.kind}, not one whole number")
    return values[0]


def _feature(record: bytes, start: int, stop: int) -> Feature | None:
    found = None
    for number, wire, begin, end in _fields(record, start, stop):
        if number in _KINDS and wire == _LENGTH:
            found = Feature(_KINDS[number], begin, end)
    return found


def _messages(record: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges of the fields of number `wanted` that have a length."""
    for number, wire, begin, end in _fields(record, start, stop):
        if (number, wire) == (wanted, _LENGTH):
            yield begin, end


def _fields(record: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (number, wire type, start and end of the value) of the fields of the message in [start, stop)."""
    while start < stop:
        tag, begin = _varint(record, start)
        wire = tag & 7
        if wire == _VARINT:
            _, end = _varint(record, begin)
        elif wire == _LENGTH:
            length, begin = _varint(record, begin)
            end = begin + length
        elif wire in (_FIXED64, _FIXED32):
            end = begin + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"the wire type {wire} at byte {start}")
        if end > stop:
            raise ValueError(f"a field at byte {start} that ends at byte {end}, after its message at {stop}")
        yield tag >> 3, wire, begin, end
        start = end


def _varint(record: bytes, at: int) -> tuple[int, int]:
    """Returns the number at byte `at`, seven bits in a byte and the lowest first, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(record) or shift > 63:
            raise ValueError(f"a number without an end at byte {at}")
        byte = record[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
