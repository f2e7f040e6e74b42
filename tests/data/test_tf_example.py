"""The features of a record lie where TensorFlow's own parser finds them, and damage is told from them."""

import pytest

from convmixer_jax.data.sources.tf_example import bytes_range, find_features, whole_number
from tests.data.records import example


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_the_bytes_of_a_feature_are_found(size):
    content = bytes(n % 251 for n in range(size))
    record = example({"a": [0.5, 0.25], "image/encoded": content, "z": 3, "ä": b"text"})
    features = find_features(record)
    assert features.keys() == {"a", "image/encoded", "z", "ä"}
    start, stop = bytes_range(record, features["image/encoded"])
    assert record[start:stop] == content
    assert record[slice(*bytes_range(record, features["ä"]))] == b"text"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 1000, -1, 2**63 - 1, -(2**63)])
def test_whole_numbers_are_those_that_were_written(number):
    record = example({"label": number})
    assert whole_number(record, find_features(record)["label"]) == number


def test_a_number_may_be_written_without_packing():
    # Example {Features {entry {key "n", value {Int64List {value 300}}}}}, the value as a field of its own.
    value = b"\x1a\x03\x08\xac\x02"
    entry = b"\x0a\x01n\x12" + bytes([len(value)]) + value
    features = b"\x0a" + bytes([len(entry)]) + entry
    record = b"\x0a" + bytes([len(features)]) + features
    assert whole_number(record, find_features(record)["n"]) == 300


def test_no_features_and_fields_from_the_future_are_no_mistake():
    assert find_features(b"") == find_features(example({})) == {}
    assert find_features(b"\x10\x05" + b"\x1d" + bytes(4) + b"\x21" + bytes(8) + b"\x2a\x01x") == {}


# For each: what reads which of the features below, and what is said.
MISTAKES = {
    "a number for bytes": (bytes_range, "label", "1 floats|0 bytes|not bytes once"),
    "bytes for a number": (whole_number, "image", "bytes, not one whole number"),
    "two images": (bytes_range, "images", "2 bytes, not bytes once"),
    "two labels": (whole_number, "labels", "2, not one whole number"),
    "no value": (whole_number, "empty", "floats, not one whole number"),
}


@pytest.mark.parametrize("read, key, words", MISTAKES.values(), ids=MISTAKES)
def test_a_feature_of_another_kind_is_named(read, key, words):
    record = example({"label": 3, "image": b"x", "images": [b"x", b"y"], "labels": [1, 2], "empty": []})
    with pytest.raises(ValueError, match=words):
        read(record, find_features(record)[key])


def test_every_cut_of_a_record_is_noticed_or_leaves_no_image():
    record = example({"image": b"some bytes"})
    for size in range(1, len(record)):
        with pytest.raises(ValueError, match="after its message|without an end"):
            find_features(record[:size])


@pytest.mark.parametrize("junk", [b"\xff" * 20, b"\x0b", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_junk_is_refused(junk):
    with pytest.raises(ValueError, match="without an end|wire type|after its message"):
        find_features(junk)
