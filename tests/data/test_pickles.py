"""Pickles of arrays and plain containers are read; anything else is refused and never run."""

import collections
import io
import pickle

import numpy as np
import pytest

from convmixer_jax.data.sources.pickles import load_plain_pickle
from convmixer_jax.errors import UserError
from tests.data.archives import python2_batch, python3_batch, rows_of

PIXELS, LABELS = rows_of("test_batch")


def load(content: bytes):
    return load_plain_pickle(io.BytesIO(content), "some/batch")


def test_python_2_strings_come_back_as_str():
    content = load(python2_batch(PIXELS, LABELS))
    assert content.keys() == {"batch_label", "labels", "data"}
    assert content["batch_label"] == "a batch"
    assert content["labels"] == LABELS
    np.testing.assert_array_equal(content["data"], PIXELS)


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_of_python_3(protocol):
    content = load(python3_batch(PIXELS, LABELS, protocol))
    assert content.keys() == {b"batch_label", b"labels", b"data"}
    assert content[b"batch_label"] == b"a batch"
    np.testing.assert_array_equal(content[b"data"], PIXELS)


ARRAYS = {
    "uint8": np.arange(250, 256, dtype=np.uint8).reshape(2, 3),
    "int64": np.arange(-3, 3).reshape(3, 2),
    "float32": np.array([0.5, -2.0], np.float32),
    "bool": np.array([True, False]),
    "big endian": np.array([1, 258], ">u2"),
    "Fortran order": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "no axes": np.array(7.0),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_numbers(array, protocol):
    found = load(pickle.dumps(array, protocol=protocol))
    assert (found.dtype, found.shape) == (array.dtype.newbyteorder("="), array.shape)  # as numpy's own reading does
    np.testing.assert_array_equal(found, array)


def test_numpy_1_wrote_another_module_name():
    # Of protocol 2, whose names end at a newline; later ones state their lengths.
    written = pickle.dumps(PIXELS, protocol=2)
    assert b"numpy._core.multiarray\n" in written
    np.testing.assert_array_equal(load(written.replace(b"numpy._core", b"numpy.core")), PIXELS)


RUN = b"S'touch PROOF'\n"  # PROOF is replaced by a path that must not come to be
HOSTILE = {
    "os.system": (b"cos\nsystem\n(" + RUN + b"tR.", "os.system"),
    "posix.system": (b"cposix\nsystem\n(" + RUN + b"tR.", "posix.system"),
    "eval": (b'c__builtin__\neval\n(S\'open("PROOF", "w")\'\ntR.', "__builtin__.eval"),
    "builtins.eval": (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93(" + RUN + b"tR.", "builtins.eval"),
    "getattr chain": (b"cbuiltins\ngetattr\n(cos\nS'system'\ntR(" + RUN + b"tR.", "builtins.getattr"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93(" + RUN + b"tR.", "numpy.ndarray.tofile"),
    "instance": (b"(" + RUN + b"ios\nsystem\n.", "os.system"),
    "object": (b"(cos\nsystem\n" + RUN + b"o.", "os.system"),
    "copyreg": (b"ccopy_reg\n_reconstructor\n(tR.", "copy_reg._reconstructor"),
    "ordered dict": (pickle.dumps(collections.OrderedDict(a=1), protocol=2), "collections.OrderedDict"),
    "bytearray": (pickle.dumps(bytearray(b"a"), protocol=2), "__builtin__.bytearray"),
    "another codec": (b"c_codecs\nencode\n(VPROOF\nVutf-16\ntR.", "the codec 'utf-16'"),
    "codec of any object": (b"c_codecs\nencode\n(K\x01Vlatin1\ntR.", "the codec 'latin1'"),
    "decode": (b"c_codecs\ndecode\n(S'x'\nS'hex'\ntR.", "_codecs.decode"),
    "object array": (pickle.dumps(np.array([None, "a"], dtype=object), protocol=2), "dtype 'O8'"),
    "records": (pickle.dumps(np.zeros(2, "i4,f4"), protocol=2), "dtype 'V8'"),
    "texts": (pickle.dumps(np.array(["a"]), protocol=2), "dtype 'U1'"),
    "masked array": (pickle.dumps(np.ma.array([1]), protocol=2), "numpy.ma"),
    "array of another class": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tU\x01btR.",
        "another class than numpy.ndarray",
    ),
    "protocol 5": (pickle.dumps(np.arange(3), protocol=5), "_frombuffer"),
}


@pytest.mark.parametrize("content, words", HOSTILE.values(), ids=HOSTILE)
def test_anything_else_is_refused_and_not_run(tmp_path, content, words):
    proof = tmp_path / "proof"
    with pytest.raises(UserError) as caught:
        load(content.replace(b"PROOF", str(proof).encode()))
    assert words in str(caught.value)
    assert "some/batch" in str(caught.value)
    assert "nothing in it was run" in str(caught.value)
    assert not proof.exists()


def test_the_proof_of_the_hostile_pickles_would_show(tmp_path):
    content, _ = HOSTILE["os.system"]
    pickle.loads(content.replace(b"PROOF", str(tmp_path / "proof").encode()))
    assert (tmp_path / "proof").exists()


DTYPE = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
DISAGREEING = {
    "fewer bytes than the shape": (
        ARRAY + b"(K\x01(K\x03t" + DTYPE + b"\x89U\x02abtb.",
        "an array of shape (3,) without its 3 bytes",
    ),
    "more bytes than the shape": (
        ARRAY + b"(K\x01(K\x01t" + DTYPE + b"\x89U\x02abtb.",
        "an array of shape (1,) without its 1 bytes",
    ),
    "negative shape": (
        ARRAY + b"(K\x01(J\xff\xff\xff\xffJ\xff\xff\xff\xfft" + DTYPE + b"\x89U\x01atb.",
        "an array without a plain shape and dtype",
    ),
    "a list for the bytes": (
        ARRAY + b"(K\x01(K\x03t" + DTYPE + b"\x89](K\x01K\x01K\x01etb.",
        "an array of shape (3,) without its 3 bytes",
    ),
    "no dtype": (ARRAY + b"(K\x01(K\x03tN\x89U\x03abctb.", "an array without a plain shape and dtype"),
    "dtype with fields": (DTYPE.replace(b"|NNN", b"|N)}") + b".", "a dtype with the state (3, '|', None, (), {}"),
    "dtype without a byte order": (DTYPE.replace(b"U\x01|", b"U\x01O") + b".", "a dtype with the state (3, 'O'"),
    "ndarray called": (b"cnumpy\nndarray\n(K\x03tR.", "not callable"),
    "attributes set on a function": (b"c_codecs\nencode\n(N}U\x01aK\x01stb.", "has no attribute 'a'"),
}


@pytest.mark.parametrize("content, words", DISAGREEING.values(), ids=DISAGREEING)
def test_arrays_that_contradict_themselves(content, words):
    with pytest.raises(UserError, match="some/batch is cut short, damaged, or no CIFAR file") as caught:
        load(content)
    assert words in str(caught.value)


def test_the_parts_of_those_arrays_are_otherwise_right():
    np.testing.assert_array_equal(load(ARRAY + b"(K\x01(K\x02t" + DTYPE + b"\x89U\x02abtb."), [97, 98])


WHOLE = python2_batch(PIXELS, LABELS)
DAMAGED = {
    "empty": b"",
    "text": b"hello",
    "zeros": bytes(100),
    "page of a web server": b"<html><body>404 Not Found</body></html>",
    "persistent id": b"Psomewhere\n.",
    "unregistered extension": b"\x82\x01.",
    "nothing on the stack": b"\x80\x02.",
    "a length beyond all memory": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little"),
    **{f"first {size} bytes": WHOLE[:size] for size in (1, 2, 10, 100, 5000, len(WHOLE) - 1)},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_a_user_error(content):
    with pytest.raises(UserError, match="some/batch is cut short, damaged, or no CIFAR file"):
        load(content)
