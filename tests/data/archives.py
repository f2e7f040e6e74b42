"""Small CIFAR archives with numbers that can be checked by hand, and a server that serves them, well or badly.

Image n has n as red everywhere, 100 + y as green and 200 + x as blue, and the label n % 10.
"""

import contextlib
import dataclasses
import gzip
import http.server
import io
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources.cifar_specs import CIFAR10, CifarSpec

SPEC = dataclasses.replace(
    CIFAR10,
    files={"train": (("data_batch_1", 30), ("data_batch_2", 30)), "test": (("test_batch", 10),)},
    urls=(),
)
NUMBERS = {"data_batch_1": range(30), "data_batch_2": range(30, 60), "test_batch": range(60, 70)}
TRAIN = ("data_batch_1", "data_batch_2")
EVERY_FILE = tuple(NUMBERS)


def spec_with(**changes) -> CifarSpec:
    return dataclasses.replace(SPEC, **changes)


def expected(split: str) -> tuple[np.ndarray, np.ndarray]:
    numbers = [n for name, _ in SPEC.files[split] for n in NUMBERS[name]]
    images = np.zeros((len(numbers), 32, 32, 3), np.uint8)
    for row, n in enumerate(numbers):
        for y in range(32):
            for x in range(32):
                images[row, y, x] = (n, 100 + y, 200 + x)
    return images, np.array([n % 10 for n in numbers], np.int32)


def rows_of(name: str) -> tuple[np.ndarray, list[int]]:
    """One batch file's pixels, channel-major as the archive has them, uint8 [N, 3072], and its labels."""
    down, across = np.repeat(np.arange(32), 32), np.tile(np.arange(32), 32)
    rows = [np.concatenate([np.full(1024, n), 100 + down, 200 + across]) for n in NUMBERS[name]]
    return np.array(rows, np.uint8), [n % 10 for n in NUMBERS[name]]


def python3_batch(pixels: np.ndarray, labels: list[int], protocol: int = 2) -> bytes:
    """As Python 3 writes it after reading the original with encoding="bytes"."""
    return pickle.dumps({b"batch_label": b"a batch", b"labels": labels, b"data": pixels}, protocol=protocol)


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """As Python 2's cPickle writes protocol 2, opcode by opcode: every string is a byte string."""
    shape = b"M" + struct.pack("<H", pixels.shape[0]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + (b"(K\x01" + shape)
        + (b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        + (b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb")
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x0bbatch_labelU\x07a batchU\x06labels" + numbers + b"U\x04data" + array + b"u."


Encode = Callable[[np.ndarray, list[int]], bytes]


def write_python_folder(data_dir: Path, encode: Encode = python3_batch, names: tuple[str, ...] = EVERY_FILE) -> None:
    folder = data_dir / SPEC.python_folder
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(encode(*rows_of(name)))


def write_noise(data_dir: Path) -> None:
    """Writes a folder with as many images as the real CIFAR-10 has, 180 MB of noise."""
    folder = data_dir / CIFAR10.python_folder
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, count in (file for files in CIFAR10.files.values() for file in files):
        pixels, labels = draw.integers(0, 256, (count, 3072), np.uint8), (np.arange(count) % 10).tolist()
        (folder / name).write_bytes(python3_batch(pixels, labels, protocol=4))


def write_binary_folder(data_dir: Path, names: tuple[str, ...] = EVERY_FILE) -> None:
    folder = data_dir / SPEC.binary_folder
    folder.mkdir(parents=True)
    for name in names:
        pixels, labels = rows_of(name)
        records = [bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))


def archive_bytes(names: tuple[str, ...] = EVERY_FILE, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    # Without the time of day in it, the same bytes every time.
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            content = python2_batch(*rows_of(name))
            member = tarfile.TarInfo(f"{prefix}{SPEC.python_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_archive(data_dir: Path, names: tuple[str, ...] = EVERY_FILE, prefix: str = "") -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / SPEC.archive).write_bytes(archive_bytes(names, prefix))


# In a process of its own, so that the tests' own process never imports TensorFlow. Three shards of 20: the default
# reader would take 16 examples of each in turn. The order is kept only to know it; the real CIFAR-10 says that it is
# not in order, so the file that describes the directory must not say so either.
_PREPARE = """
import json, pathlib, sys
import numpy as np
import tensorflow_datasets as tfds

class Cifar10(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version(sys.argv[2])
    def _info(self):
        features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)
    def _split_generators(self, manager):
        return {"train": self._generate_examples(0, 60), "test": self._generate_examples(60, 70)}
    def _generate_examples(self, start, stop):
        for n in range(start, stop):
            image = np.zeros((32, 32, 3), np.uint8)
            image[..., 0], image[..., 1] = n, 100 + np.arange(32)[:, None]
            image[..., 2] = 200 + np.arange(32)
            yield n, {"id": str(n), "image": image, "label": n % 10}

builder = Cifar10(data_dir=sys.argv[1])
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
info = pathlib.Path(builder.data_dir) / "dataset_info.json"
content = json.loads(info.read_text())
assert content.pop("disableShuffling") is True
info.write_text(json.dumps(content))
"""


def write_tfds_directory(data_dir: Path, version: str = "3.0.2") -> None:
    """Prepares DATA_DIR/cifar10/VERSION with the same examples."""
    subprocess.run([sys.executable, "-c", _PREPARE, str(data_dir), version], check=True, capture_output=True)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at paths that name how it behaves; `requests` lists (path, Range or None) as they came."""

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.requests: list[tuple[str, str | None]] = []
        self.when_half_sent: Callable[[], None] = lambda: None

    def handle_error(self, request, client_address) -> None:
        pass  # a client that gave up on a stalled answer; the default prints a traceback

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path, asked = self.path.strip("/"), self.headers.get("Range")
        earlier = sum(seen == path for seen, _ in self.server.requests)
        self.server.requests.append((path, asked))
        content = self.server.content
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and path != "ignores-range" else 0
        if path == "missing":
            self.send_error(404)
        elif path == "silent":
            time.sleep(2.0)
        elif path == "other-bytes":
            self._answer(200, content[::-1], len(content))
        elif start >= len(content):
            self.send_error(416)
        elif path == "cut-at-once" or (path == "cut-once" and not earlier):
            self._answer(206 if start else 200, b"" if path == "cut-at-once" else content[:1000], len(content) - start)
        elif path == "wrong-range" and start:
            self._answer(206, content, len(content), f"bytes {start - 1}-{len(content) - 1}/{len(content)}")
        else:
            length = None if path == "no-length" else len(content) - start
            self._answer(206 if start else 200, content[start:], length, f"bytes {start}-{len(content) - 1}/*")

    def _answer(self, status: int, body: bytes, length: int | None, content_range: str = "bytes 0-0/*") -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.server.when_half_sent()
        self.wfile.write(body[len(body) // 2 :])


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
