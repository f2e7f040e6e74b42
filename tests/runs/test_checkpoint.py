"""Checkpoints come back bit for bit, a failed write never counts, and the right ones are kept."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training.mesh import over_data, replicated

META = {"step": 7, "config_digest": "ab", "train_top1": None, "best": {"val_top1": 0.5, "step": 7}, "seconds": 1.25}


def bits(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Any bits at all: NaN, infinities and subnormal numbers included."""
    kind = jnp.dtype(dtype)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, kind.itemsize), np.uint8)
    return raw.view(kind).reshape(shape)


def make_tree(mesh) -> dict:
    leaves = {
        "params": {
            "kernel": bits(0, (16, 3), "float32"),
            "half": bits(1, (8,), "bfloat16"),
        },
        "step": np.int32(7),
        "counts": {"deep": {"er": bits(2, (2, 2, 2), "int32")}, "bytes": bits(3, (5,), "uint8")},
    }
    return jax.device_put(leaves, replicated(mesh))


def abstract(tree, sharding):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def assert_same_bits(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for (path, leaf), (_, wanted) in zip(
        jax.tree.leaves_with_path(tree), jax.tree.leaves_with_path(expected), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype), path
        assert np.asarray(leaf).tobytes() == np.asarray(wanted).tobytes(), path


@pytest.fixture
def tree(mesh):
    return make_tree(mesh(1))


@pytest.fixture
def saved(tmp_path, tree):
    """A folder with step 7."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, tree, META)
    checkpoints.close()
    return tmp_path


def test_everything_comes_back_bit_for_bit(saved, tree, mesh):
    checkpoints = Checkpoints(saved)
    assert (checkpoints.saved, checkpoints.steps(), checkpoints.failures) == (7, [7], {})
    restored, meta = checkpoints.restore(7, abstract(tree, replicated(mesh(1))))
    assert_same_bits(restored, tree)
    assert meta == META
    checkpoints.close()


def test_groups_come_back_without_the_others(saved, tree):
    large = np.random.default_rng(0).bytes(1_000_000)  # in a file of its own
    checkpoints = Checkpoints(saved, keep=2)
    checkpoints.save(8, tree | {"opt_state": {"m": np.frombuffer(large, np.uint8)}}, {})
    checkpoints.confirm()
    assert sorted(checkpoints.groups(8)) == ["counts", "opt_state", "params", "step"]
    largest = max((saved / "8").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(largest.read_bytes()[:100])
    assert_same_bits(checkpoints.restore_groups(8, ["params", "step"]), {n: tree[n] for n in ("params", "step")})
    for read in (lambda: checkpoints.restore_groups(8, ["opt_state"]), lambda: checkpoints.groups(8)):
        with pytest.raises(UserError, match=r"checkpoint .*8 is damaged .*move it away to go on from step 7"):
            read()
    checkpoints.close()


@pytest.mark.parametrize("devices", [2, 8])
def test_it_comes_back_on_other_devices(saved, tree, mesh, devices):
    template = abstract(tree, replicated(mesh(devices)))
    template["params"]["kernel"] = abstract(tree["params"]["kernel"], over_data(mesh(devices)))
    checkpoints = Checkpoints(saved, read_only=True)
    restored, _ = checkpoints.restore(7, template)
    assert_same_bits(restored, tree)
    kernel = restored["params"]["kernel"]
    assert len(kernel.sharding.device_set) == devices
    assert kernel.addressable_shards[0].data.shape == (16 // devices, 3)
    checkpoints.close()


def test_a_step_is_saved_when_it_is_confirmed(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert (checkpoints.saved, checkpoints.steps()) == (None, [])
    checkpoints.save(1, tree, {})
    assert checkpoints.saved is None
    checkpoints.save(2, tree, {})  # waits for the one before
    assert checkpoints.saved == 1
    checkpoints.confirm()
    assert (checkpoints.saved, checkpoints.steps()) == (2, [1, 2])
    checkpoints.confirm()  # nothing is under way
    assert checkpoints.saved == 2
    checkpoints.save(3, tree, {})
    checkpoints.close()  # confirms too
    assert (checkpoints.saved, checkpoints.failures) == (3, {})


def test_a_finished_write_is_confirmed_without_waiting(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.confirm_if_finished()
    assert checkpoints.saved is None
    checkpoints.save(1, tree, {})
    checkpoints._confirmation.result()
    checkpoints.confirm_if_finished()
    assert checkpoints.saved == 1
    checkpoints.close()


KEPT = {
    "newest one": (1, [None] * 5, [5]),
    "newest two": (2, [None] * 5, [4, 5]),
    "more than there are": (9, [None] * 3, [1, 2, 3]),
    "best beside the newest": (1, [0.5, 0.9, 0.6, 0.7], [2, 4]),
    "best is the newest": (2, [0.5, 0.6, 0.7, 0.8], [3, 4]),
    "saves between evaluations have no score": (1, [0.5, None, 0.9, None, None, 0.8, None], [3, 7]),
    "the later of two equals": (1, [0.9, 0.9, 0.1], [2, 3]),
    "a score of zero": (1, [0.0, None], [1, 2]),
}


@pytest.mark.parametrize("keep, scores, expected", KEPT.values(), ids=KEPT)
def test_which_are_kept(tmp_path, keep, scores, expected):
    checkpoints = Checkpoints(tmp_path, keep)
    for step, score in enumerate(scores, 1):
        checkpoints.save(step, {"x": np.zeros(1)}, {}, score)
    checkpoints.close()
    reopened = Checkpoints(tmp_path, read_only=True)
    assert reopened.steps() == expected
    reopened.close()


def test_the_best_of_an_earlier_start_is_kept(tmp_path):
    for step, score in ((1, 0.9), (2, 0.5), (3, 0.6)):
        checkpoints = Checkpoints(tmp_path, keep=1)
        checkpoints.save(step, {"x": np.zeros(1)}, {}, score)
        checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["1", "3"]


def test_the_best_outlives_a_failed_write(tmp_path, monkeypatch):
    def disk_is_full(*arguments, **options):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"x": np.zeros(1)}, {}, 0.9)
    checkpoints.confirm()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints._writer, "save", disk_is_full)
        checkpoints.save(2, {"x": np.zeros(1)}, {}, 0.8)
    assert (checkpoints.saved, checkpoints.steps()) == (1, [1])
    assert checkpoints.failures == {2: "OSError: [Errno 28] No space left on device"}
    for step in (3, 4):
        checkpoints.save(step, {"x": np.zeros(1)}, {}, 0.1)
    checkpoints.close()
    assert checkpoints.saved == 4
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["1", "4"]


def leave_half_a_write(folder: Path) -> Path:
    """What a killed process leaves: a folder of Orbax's temporary name."""
    unfinished = folder / "14.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "_CHECKPOINT_METADATA").write_text("{}")
    (unfinished / "state.orbax-checkpoint-tmp").mkdir()
    return unfinished


def test_leftovers_are_removed_at_opening(saved, tree, mesh):
    unfinished = leave_half_a_write(saved)
    checkpoints = Checkpoints(saved)
    assert checkpoints.steps() == [7]
    assert_same_bits(checkpoints.restore(7, abstract(tree, replicated(mesh(1))))[0], tree)
    checkpoints.close()
    assert not unfinished.exists()


def test_a_reader_removes_and_makes_nothing(saved, tmp_path):
    unfinished = leave_half_a_write(saved)
    before = sorted((path, path.stat().st_mtime_ns) for path in saved.rglob("*"))
    checkpoints = Checkpoints(saved, read_only=True)
    assert (checkpoints.steps(), checkpoints.saved) == ([7], 7)  # the half is not offered
    checkpoints.close()
    assert unfinished.exists()
    assert sorted((path, path.stat().st_mtime_ns) for path in saved.rglob("*")) == before
    nothing = Checkpoints(tmp_path / "not there", read_only=True)
    assert (nothing.steps(), nothing.saved) == ([], None)
    nothing.close()
    assert not (tmp_path / "not there").exists()


def without(template: dict) -> None:
    del template["params"]["kernel"]


def with_more(template: dict) -> None:
    template["params"]["bias"] = template["step"]


def of_shape(template: dict) -> None:
    template["params"]["kernel"] = jax.ShapeDtypeStruct((3, 16), jnp.float32, sharding=template["step"].sharding)


def of_dtype(template: dict) -> None:
    template["params"]["kernel"] = jax.ShapeDtypeStruct((16, 3), jnp.bfloat16, sharding=template["step"].sharding)


def of_whole_numbers(template: dict) -> None:
    template["step"] = jax.ShapeDtypeStruct((), jnp.int16, sharding=template["step"].sharding)


def a_leaf_for_a_group(template: dict) -> None:
    template["counts"] = template["step"]


MISFITS = {
    "missing": (without, "['params']['kernel']", "(16, 3)", "nothing"),
    "extra": (with_more, "['params']['bias']", "nothing", "()"),
    "shape": (of_shape, "['params']['kernel']", "(16, 3)", "(3, 16)"),
    "dtype": (of_dtype, "['params']['kernel']", "float32", "bfloat16"),
    "narrower int": (of_whole_numbers, "['step']", "int32", "int16"),
    "group": (a_leaf_for_a_group, "['counts']", "nothing", "int32"),
}


@pytest.mark.parametrize("change, leaf, there, wanted", MISFITS.values(), ids=MISFITS)
def test_a_leaf_that_does_not_fit_is_named(saved, tree, mesh, change, leaf, there, wanted):
    template = abstract(tree, replicated(mesh(1)))
    change(template)
    checkpoints = Checkpoints(saved, read_only=True)
    with pytest.raises(UserError) as caught:
        checkpoints.restore(7, template)
    before, after = str(caught.value).split(f" for {leaf}, the config asks for ")
    assert f"checkpoint 7 in {saved} has " in before
    assert there in before
    assert wanted in after
    assert "use the config it was made with, or another --workdir" in after
    checkpoints.close()


def test_a_step_that_gets_its_score_later_can_be_the_best(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, score in ((7, None), (8, None), (9, 0.25)):
        checkpoints.save(step, tree, META, score)
        checkpoints.confirm()
        if step == 8:
            checkpoints.add_score(8, 0.5)
    checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [8, 9]
    assert_same_bits(Checkpoints(tmp_path, read_only=True).restore(8, abstract(tree, tree["step"].sharding))[0], tree)
