"""Bad image files are named in one line, or replaced by the next good one, in every way to read them alike."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.commands import run_command
from convmixer_jax.data.bad_examples import Replacements, check_readable
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.fitting import MOST_STORED_PIXELS, open_image
from convmixer_jax.data.host_batches import HostBatches, Reading, in_memory
from convmixer_jax.data.order import batch_indices
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.data.stream import StreamEvaluation, StreamInput
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.inference.preprocess import Preprocess
from convmixer_jax.training.mesh import over_data, replicated
from tests.data.images import make_it_a_folder, numbered, write_files

SKIP = Reading(skip_bad=True)
SEED, BATCH = 5, 8


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and has a byte of its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">II", zlib.crc32(chunk), 1) + b"IDATx"


def floating_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def huge_jpeg() -> bytes:
    """A JPEG whose header says 20,000 x 10,000."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    content = buffer.getvalue()
    size = content.index(b"\xff\xc0") + 5
    return content[:size] + struct.pack(">HH", 10_000, 20_000) + content[size + 4 :]


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:40]), "is damaged or no image"),
    "empty": (lambda path: path.write_bytes(b""), r"\(0 bytes\) is damaged or no image \(cannot identify image file\)"),
    "text": (lambda path: path.write_text("<html>404 Not Found</html>"), "is damaged or no image"),
    "a folder": (make_it_a_folder, r"cannot be read \(Is a directory\)"),
    "missing": (lambda path: path.unlink(), r"cannot be read \(No such file or directory\): put it back"),
    "huge": (lambda path: path.write_bytes(png_header(20_000, 10_000)), "more than 178,956,970 pixels: make"),
    "huge JPEG": (lambda path: path.write_bytes(huge_jpeg()), "more than 178,956,970 pixels: make it smaller"),
    "floats": (lambda path: path.write_bytes(floating_tiff()), "floating-point numbers, 0.5 to 0.5"),
}


@pytest.mark.parametrize("spoil, words", BAD.values(), ids=BAD)
def test_the_first_bad_file_is_named_in_one_line(tmp_path, spoil, words):
    files = write_files(tmp_path, numbered(4))
    check_readable(files, range(4))
    for n in (2, 3):
        spoil(tmp_path / f"{n}.png")
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / '2.png'))} .*{words}") as caught:
        check_readable(files, range(4))
    assert ": put " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "node" not in str(caught.value), "TensorFlow's words are no help"


KINDS: dict[str, dict] = {
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "CMYK JPEG": {},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "GIF": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_file_may_be_cut_short(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.fromarray(pixels).convert("CMYK" if "CMYK" in kind else "RGB")
    path = tmp_path / "0"
    image.save(path, kind.split()[-1], **KINDS[kind])
    content = path.read_bytes()
    files = ImageFiles(tmp_path, np.array(["0"]), label=np.zeros(1, np.int32), image_shape=(64, 64, 3))
    check_readable(files, [0])
    for kept in (0, 1, 10, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"0 \([\d,]+ bytes\) is damaged or no image"):
            check_readable(files, [0])


def test_up_to_the_limit_of_pixels_no_file_is_refused_for_them(tmp_path):
    # Only the header is read here, the rest is not there.
    path = tmp_path / "0.png"
    path.write_bytes(png_header(10_000, 17_000))
    with pytest.raises(UserError, match="damaged") as caught:
        Preprocess((8, 8, 3), (0.0,) * 3, (1.0,) * 3, 1.0).levels(path)
    assert "make it smaller" not in str(caught.value)
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MOST_STORED_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.fixture
def holed(tmp_path):
    """20 examples, of which 3, 7, 8 and 19 are bad; and what takes the place of each."""
    files = write_files(tmp_path, numbered(20))
    for n, (spoil, _) in zip((3, 7, 8, 19), list(BAD.values())[:4], strict=True):
        spoil(tmp_path / f"{n}.png")
    instead = np.arange(20)
    instead[[3, 7, 8, 19]] = [4, 9, 9, 0]
    return files, instead


def told_names(capsys: pytest.CaptureFixture) -> list[str]:
    """Names of the files that are told to be replaced since the last call."""
    pattern = r"warning: .*/(\d+\.png) .*; the next example is taken instead \(config\.on_bad_example\)"
    told = capsys.readouterr().err
    names = re.findall(pattern, told)
    assert len(names) == told.count("warning")
    return names


def test_the_next_good_one_takes_the_place(holed, capsys):
    files, instead = holed
    learnt = Replacements(files)
    everything = np.arange(20)
    assert learnt.of(everything) is everything, "nothing is known yet"
    assert not learnt.learn(np.array([0, 4, 4]))
    assert learnt.learn(np.array([7, 0]))
    assert told_names(capsys) == ["7.png", "8.png"], "8 was found on the way"
    assert not learnt.learn(np.array([8, 7]))
    assert learnt.learn(everything)
    np.testing.assert_array_equal(learnt.of(everything), instead)
    assert learnt.of(np.array([8, 1, 8])).tolist() == [9, 1, 9]
    assert told_names(capsys) == ["3.png", "19.png"], "each once"


def test_memory_and_stream_replace_alike_in_any_number_of_processes(holed, mesh, capsys):
    files, instead = holed
    whole, grid = numbered(20), (replicated(mesh(1)), over_data(mesh(1)))
    resident = ResidentInput(files, *grid, SEED, BATCH, SKIP)
    everything = told_names(capsys)
    assert len(everything) == 4
    stream = StreamInput(files, *grid, SEED, BATCH, SKIP)
    assert told_names(capsys) == [], "only what comes up"
    for step in range(4):  # two epochs
        index = instead[batch_indices(SEED, step, BATCH, 20)]
        for batch in (take(resident.data, resident.batch(step)), stream.batch(step)):
            np.testing.assert_array_equal(batch["image"], whole.image[index])
            np.testing.assert_array_equal(batch["label"], whole.label[index])
    bad = np.flatnonzero(instead != np.arange(20))
    counts = [np.isin(batch_indices(SEED, step, BATCH, 20), bad).sum() for step in range(4)]
    for source in (resident, stream):
        assert [source.replaced(range(step, step + 1)) for step in range(4)] == counts
        assert source.replaced(range(4)) == sum(counts) > 0
    came_up = told_names(capsys)
    assert set(came_up) <= set(everything)
    assert len(came_up) == len(set(came_up)) > 0
    stream.close()
    for rows in (slice(0, 4), slice(4, 8), slice(6, 8)):  # those of one of two or four processes, begun in the middle
        batches = HostBatches(
            files,
            lambda step, rows=rows: batch_indices(SEED, step, BATCH, 20)[rows],
            range(1, 4),
            replacements=Replacements(files),
        )
        for step, batch in zip(range(1, 4), batches, strict=True):
            index = instead[batch_indices(SEED, step, BATCH, 20)[rows]]
            np.testing.assert_array_equal(batch["image"], whole.image[index])
            np.testing.assert_array_equal(batch["label"], whole.label[index])


def test_where_it_is_not_asked_for_the_first_is_an_error(holed, mesh):
    files, _ = holed
    grid = replicated(mesh(1)), over_data(mesh(1))
    with pytest.raises(UserError, match=r"3\.png"):
        ResidentInput(files, *grid, SEED, BATCH)
    source = StreamInput(files, *grid, SEED, 20)
    with pytest.raises(UserError, match=r"\.png"):
        source.batch(0)
    with pytest.raises(UserError, match=r"3\.png"):
        list(StreamEvaluation(files, *grid, BATCH).batches())


def test_where_all_are_bad_it_ends(tmp_path, mesh):
    files = write_files(tmp_path, numbered(9))
    for n in range(9):
        (tmp_path / f"{n}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^all 9 images are bad, .*\.png among them") as caught:
        in_memory(files, Replacements(files))
    assert "\n" not in str(caught.value)


def test_an_evaluation_of_what_was_held_out_replaces_them_too(holed, mesh):
    files, instead = holed
    grid, whole = (replicated(mesh(1)), over_data(mesh(1))), numbered(20)
    resident = ResidentEvaluation(files, *grid, BATCH, SKIP)
    stream = StreamEvaluation(files, *grid, BATCH, SKIP)
    for _ in range(2):  # passes
        for batches in ([take(resident.data, batch) for batch in resident.batches()], list(stream.batches())):
            image, label, mask = (np.concatenate([batch[name] for batch in batches]) for name in batches[0])
            np.testing.assert_array_equal(image[mask], whole.image[instead])
            np.testing.assert_array_equal(label[mask], whole.label[instead])


def test_a_command_says_nothing_of_large_images_and_the_library_leaves_that_to_its_user():
    def look(stop: object) -> ExitCode:
        with open_image(io.BytesIO(png_header(10_000, 10_000))) as image:
            return ExitCode.DONE if image.size == (10_000, 10_000) else ExitCode.CRASH

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert look(None) == ExitCode.DONE
        assert [warning.category for warning in caught] == [Image.DecompressionBombWarning]
        caught.clear()
        assert run_command(look) == ExitCode.DONE
        assert caught == []
