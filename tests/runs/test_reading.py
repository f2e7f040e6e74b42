"""What is not bit for bit what was saved is never given out: damage of every kind, and checkpoints of any topology."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs import steps
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.manifest import MANIFEST_FILE, encode
from convmixer_jax.runs.steps import DamagedError
from convmixer_jax.training.mesh import make_mesh, over_fsdp, replicated
from tests.runs.damage import DAMAGES, META, abstract, files_of, flip, make_tree, save_steps


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    save_steps(folder, 1, 2)
    return folder


@pytest.fixture
def folder(two_steps, tmp_path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "steps"))


@pytest.fixture(scope="module")
def template() -> dict:
    return abstract(make_tree())


def read(folder: Path, template: dict, step: int | None = None):
    checkpoints = Checkpoints(folder, read_only=True)
    return checkpoints.read_newest(lambda number: checkpoints.restore(number, template), step)


def test_the_manifest_says_what_is_there(two_steps):
    record = json.loads((two_steps / "2" / MANIFEST_FILE).read_text())["manifest"]
    assert (record["step"], record["config_digest"], record["val_top1"], record["processes"]) == (2, "ab", 0.5, 1)
    assert {"jax", "orbax-checkpoint", "convmixer_jax"} <= record["versions"].keys()
    kinds = {name: (leaf["shape"], leaf["dtype"]) for name, leaf in record["leaves"].items()}
    kernel, half = ([16, 8], "float32"), ([16, 8], "bfloat16")
    assert kinds == {"params/kernel": kernel, "params/half": half, "step": ([], "int32")}
    assert record["files"].keys() == files_of(two_steps / "2").keys() - {MANIFEST_FILE}
    # printf '\2\0\0\0' | sha256sum
    assert record["leaves"]["step"]["sha256"].startswith("26b25d457597a7b0")


def test_64_of_64_flipped_bits_are_found(folder, template):
    rng = np.random.default_rng(0)
    pristine = files_of(folder / "2")
    names, found = sorted(pristine), 0
    # Places by size, as a disk would, would hit little but arrays: files by turns, so that every one is hit.
    for turn in range(64):
        path = folder / "2" / names[turn % len(names)]
        flip(path, int(rng.integers(8 * len(pristine[names[turn % len(names)]]))))
        with pytest.raises(DamagedError):
            read(folder, template, step=2)
        found += 1
        step, _, told = read(folder, template)
        assert step == 1
        assert re.fullmatch(r"warning: checkpoint 2 is not used \(.*\)", told[0])
        path.write_bytes(pristine[names[turn % len(names)]])
    assert found == 64
    assert read(folder, template)[0] == 2


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES)
def test_a_reader_takes_the_step_before_and_moves_nothing(folder, template, damage, words):
    damage(folder / "2")
    before = files_of(folder)
    step, (tree, meta), (told,) = read(folder, template)
    assert (step, meta) == (1, META)
    np.testing.assert_array_equal(tree["params"]["kernel"], make_tree()["params"]["kernel"])
    assert told.startswith("warning: checkpoint 2 is not used (")
    assert re.search(words, told)
    with pytest.raises(DamagedError, match=words) as caught:
        read(folder, template, step=2)
    assert f"checkpoint {folder / '2'} is damaged" in str(caught.value)
    assert "move it away to go on from step 1" in str(caught.value)
    assert read(folder, template, step=1)[0] == 1
    with pytest.raises(DamagedError, match=words):
        Checkpoints(folder, read_only=True).groups(2)
    assert files_of(folder) == before


def test_nothing_good_is_told_of_the_newest(folder, template):
    for step in (1, 2):
        (folder / str(step) / "meta/metadata").unlink()
    with pytest.raises(DamagedError, match=r"steps/2 is damaged \(meta/metadata is missing\)"):
        read(folder, template)


def test_no_step_or_not_this_one(folder, tmp_path, template):
    assert read(tmp_path / "nothing", template) is None
    assert read(folder, template, step=7) is None


def test_an_array_that_is_not_what_was_in_memory_is_found(folder, template):
    """As if Orbax or the disk had changed it before its file was first read: the files are what the manifest says."""
    path = folder / "2" / MANIFEST_FILE
    record = json.loads(path.read_text())["manifest"]
    record["leaves"]["params/half"]["sha256"] = "0" * 64
    path.write_bytes(encode(record))
    with pytest.raises(DamagedError, match="params/half is not what was saved"):
        read(folder, template, step=2)
    checkpoints = Checkpoints(folder, read_only=True)
    checkpoints.restore_groups(2, ["step"])  # the others are right
    with pytest.raises(DamagedError, match="params/half is not what was saved"):
        checkpoints.restore_groups(2, ["params"])


def test_a_manifest_that_is_being_rewritten_is_no_damage(folder, template):
    """As a kill leaves it, or a reader sees it, while a score is added."""
    (folder / "2" / f"{MANIFEST_FILE}.tmp").write_bytes(b"half")
    assert read(folder, template)[0::2] == (2, [])


@pytest.mark.parametrize("step", [None, 2])
def test_a_step_that_a_run_removes_meanwhile_is_not_damaged(folder, template, step):
    """A reader that is slow, and a run that has saved step 3 and removed step 2 before that is read."""
    checkpoints = Checkpoints(folder, read_only=True)
    asked = []

    def slow(number):
        asked.append(number)
        if number == 2:
            (folder / "2").rename(folder / "3")
            path = folder / "3" / MANIFEST_FILE
            path.write_bytes(encode(json.loads(path.read_text())["manifest"] | {"step": 3}))
        return checkpoints.restore(number, template)

    found = checkpoints.read_newest(slow, step)
    if step is None:
        assert (found[0], found[2], asked) == (3, [], [2, 3])
    else:
        assert (found, asked) == (None, [2])


def test_the_save_that_was_under_way_is_read_when_the_step_before_it_is_gone(folder, template):
    checkpoints = Checkpoints(folder, read_only=True)
    manifest = folder / "2" / MANIFEST_FILE
    manifest.rename(folder / "manifest")

    def slow(number):
        if number == 1:
            (folder / "manifest").rename(manifest)
            steps.remove(folder / "1")
        return checkpoints.restore(number, template)

    assert checkpoints.read_newest(slow)[0::2] == (2, [])


def test_a_run_that_removes_what_is_read_again_and_again_ends_the_reader(folder, template):
    checkpoints = Checkpoints(folder, read_only=True)

    def too_slow(number):
        (folder / str(number)).rename(folder / str(number + 1))
        return checkpoints.restore(number, template)

    with pytest.raises(UserError, match=r"a run removed 10 checkpoints in .* config.keep_checkpoints, or wait"):
        checkpoints.read_newest(too_slow)


def of_before(step: Path) -> None:
    """Makes it a step of before there were manifests."""
    (step / MANIFEST_FILE).unlink()
    path = step / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": {}}))


def test_a_step_of_before_is_read_and_told(folder, template):
    of_before(folder / "2")
    checkpoints = Checkpoints(folder)
    assert (checkpoints.steps(), checkpoints.saved, checkpoints.told) == ([1, 2], 2, [])
    checkpoints.close()
    step, _, told = read(folder, template)
    assert (step, told) == (2, ["checkpoint 2 is not verified: written before manifests"])


def test_a_step_of_before_that_cannot_be_read_is_damaged(folder, template):
    of_before(folder / "2")
    (folder / "2/state/manifest.ocdbt").write_bytes(b"")
    step, _, told = read(folder, template)
    assert step == 1
    assert "checkpoint 2 is not used (" in told[0]


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_step_of_before_with_another_meta_is_damaged(folder, template, content):
    of_before(folder / "2")
    (folder / "2/meta/metadata").write_text(content)
    assert read(folder, template)[0] == 1
    with pytest.raises(DamagedError):
        Checkpoints(folder, read_only=True).verify(2)


def test_a_step_that_does_not_fit_is_not_damaged(folder, template):
    wrong = template | {"step": jax.ShapeDtypeStruct((), "int16", sharding=template["step"].sharding)}
    with pytest.raises(UserError, match=r"has \(\(\), 'int32'\) for \['step'\], the config asks for") as caught:
        read(folder, wrong)
    assert not isinstance(caught.value, DamagedError)


def test_memory_that_is_full_is_not_damage(folder, template, monkeypatch):
    def full(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    of_before(folder / "1")
    monkeypatch.setattr("orbax.checkpoint.Checkpointer.restore", full)
    for step in (1, 2):
        with pytest.raises(jax.errors.JaxRuntimeError):
            read(folder, template, step)


LAYOUTS = {
    f"{devices}{' fsdp' if fsdp > 1 else ''}": (devices, fsdp) for devices in (1, 2, 4, 8) for fsdp in {1, devices}
}


def layout(name: str, tree: dict) -> dict:
    """The shardings of a tree in a row of LAYOUTS."""
    mesh = make_mesh(*LAYOUTS[name])
    return over_fsdp(mesh, tree) if "fsdp" in name else jax.tree.map(lambda leaf: replicated(mesh), tree)


@pytest.fixture(scope="module")
def of_layouts(tmp_path_factory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("layout") for name in LAYOUTS}
    for name, folder in folders.items():
        checkpoints = Checkpoints(folder)
        checkpoints.save(2, jax.device_put(make_tree(), layout(name, make_tree())), META)
        checkpoints.close()
        assert checkpoints.failures == {}
    return folders


@pytest.mark.parametrize("there", LAYOUTS)
@pytest.mark.parametrize("here", LAYOUTS)
def test_any_layout_comes_back_in_any_other(of_layouts, there, here):
    wanted, shardings = make_tree(), layout(here, make_tree())
    template = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), wanted, shardings
    )
    _, (tree, _), told = read(of_layouts[there], template)
    assert told == []
    for leaf, value, sharding in zip(*map(jax.tree.leaves, (tree, wanted, shardings)), strict=True):
        assert leaf.sharding == sharding
        assert np.asarray(leaf).tobytes() == np.asarray(value).tobytes()
    parts = {shard.data.shape for shard in tree["params"]["kernel"].addressable_shards}
    assert len(parts) == 1
    assert (parts == {(16, 8)}) == ("fsdp" not in here)
