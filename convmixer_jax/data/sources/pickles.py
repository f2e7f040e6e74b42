"""Reads a pickle that holds only arrays of numbers and plain containers, and refuses every other one.

    with open(path, "rb") as file:
        content = load_plain_pickle(file, str(path))

A pickle is a program: it may name any function and call it. Here it may name five, and gets a stand-in for each,
which checks what it is given. So only checked values reach numpy's own unpickling, which trusts them: a forged flag
of a dtype can make it take raw bytes for addresses of objects.
"""

import math
import pickle
import re
from typing import Any, BinaryIO

import numpy as np

from convmixer_jax.errors import UserError

_WAY_OUT = "nothing in it was run; delete it and take the file from the original archive again"
_NUMBERS = re.compile(r"[biuf][1248]")  # dtypes such as u1; O, the Python objects, is not among them
_NDARRAY = object()  # stands for the class numpy.ndarray: it can be handed to _reconstruct and do nothing else


def load_plain_pickle(file: BinaryIO, name: str) -> object:
    """Returns what the pickle in `file` holds: numbers, strings, bytes, containers of them, and arrays of numbers.

    file: open for reading in binary mode, at the first byte of a pickle of protocol 0 to 4, written by Python 2 or 3.
    name: what a message calls the file.
    Strings of Python 2 come back as str, one character for each byte; keys may therefore be str or bytes.
    Raises UserError where the file asks for anything else, holds an array of objects, is cut short or is damaged.
    """
    try:
        return _PlainUnpickler(file, name).load()
    except UserError:
        raise
    except Exception as error:  # bytes that are no pickle can make an unpickler raise nearly anything
        reason = str(error) or type(error).__name__
        raise UserError(f"{name} is cut short, damaged, or no CIFAR file ({reason}): {_WAY_OUT}") from error


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, name: str):
        # latin1 keeps every byte of a Python 2 string, and numpy's raw pixels are such strings.
        super().__init__(file, encoding="latin1")
        self._name = name
        self._admitted = {
            "_codecs.encode": self._encode,
            "numpy.core.multiarray._reconstruct": self._reconstruct,  # as numpy 1 writes it
            "numpy._core.multiarray._reconstruct": self._reconstruct,  # as numpy 2 does
            "numpy.ndarray": _NDARRAY,
            "numpy.dtype": self._dtype,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for `module`.`name`; raises UserError where there is none."""
        asked = f"{module}.{name}"
        if asked not in self._admitted:
            raise UserError(f"{self._name} asks for {asked}, so it is not a CIFAR file: {_WAY_OUT}")
        return self._admitted[asked]

    def _encode(self, text: object, codec: object) -> bytes:
        # Protocols before 3 have no bytes: Python 3 writes them as text to be encoded in latin1, and never otherwise.
        if codec != "latin1" or not isinstance(text, str):
            raise UserError(f"{self._name} asks for the codec {codec!r}, so it is not a CIFAR file: {_WAY_OUT}")
        return text.encode("latin1")

    def _reconstruct(self, cls: object, shape: object, typecode: object) -> "_PlainArray":
        if cls is not _NDARRAY:
            raise UserError(f"{self._name} asks for an array of another class than numpy.ndarray: {_WAY_OUT}")
        return np.ndarray.__new__(_PlainArray, (0,), np.uint8)

    def _dtype(self, code: object, align: object, copy: object) -> "_PlainDtype":
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise UserError(f"{self._name} holds an array of dtype {code!r}, not of numbers: {_WAY_OUT}")
        return _PlainDtype(code)


class _PlainDtype:
    """Stands for a dtype in the file: a kind of number, to which the pickle then adds the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str):
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        """Takes numpy's (version, byte order, subarray, names, fields, ...); raises ValueError for no number."""
        _, order, *structure = state[:5]
        if order not in ("|", "<", ">", "=") or structure != [None, None, None]:
            raise ValueError(f"a dtype with the state {state!r:.80}")
        self.dtype = self.dtype.newbyteorder(order)


class _PlainArray(np.ndarray):
    """An array that fills itself from the state in the file only after checking all of it."""

    def __setstate__(self, state: tuple) -> None:
        """Takes numpy's (version, shape, dtype, is Fortran order, raw bytes); raises ValueError where they disagree."""
        _, shape, plain, fortran, raw = state
        if not isinstance(plain, _PlainDtype) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError("an array without a plain shape and dtype")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        expected = plain.dtype.itemsize * math.prod(shape)
        if not isinstance(raw, bytes) or len(raw) != expected:
            raise ValueError(f"an array of shape {shape} without its {expected} bytes")
        # numpy's annotation asks for its own bool, which its code then refuses.
        super().__setstate__((1, tuple(shape), plain.dtype, bool(fortran), raw))  # type: ignore[arg-type]
