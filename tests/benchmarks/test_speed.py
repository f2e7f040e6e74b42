"""What is made of the sides' times: rates, ratios, shares, notes, tables. The sides' processes are pretended."""

import json
from pathlib import Path
from typing import Any

import pytest

from convmixer_jax.benchmarks import scaling
from convmixer_jax.benchmarks.ours import FixedBatch, build_eval, build_step, build_train
from convmixer_jax.benchmarks.report import significant, speed_table
from convmixer_jax.benchmarks.scaling import check_picture, draw, measure_scaling, scaling_table
from convmixer_jax.benchmarks.speed import Settings, measure_eval, measure_step, measure_train
from convmixer_jax.benchmarks.torch_side import MODES
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import Pretended, pretending, small_config, squeezed

OURS = {"dtype": "float32", "platform": "cpu", "devices": 1, "flops_per_image": 5_000_000, "compile_seconds": 1.5}
WHERE = {"versions": {"jax": "1", "flax": "2", "python": "3"}, "devices": ["cpu"]}
# By name of the side: seconds of a call, facts. A call handles 100 images, or one product.
SIDES: dict[str, tuple[float | None, dict[str, Any]]] = {
    "ours": (0.010, OURS | {"provenance": WHERE}),
    "train": (0.020, OURS | {"provenance": WHERE}),
    "step": (0.010, OURS | {"provenance": WHERE}),
    "product": (0.010, {"flops": 10**9}),
    "torch eager-nchw-float32": (0.040, {"dtype": "float32", "version": "9.9"}),
    "torch eager-nhwc-float32": (0.020, {"dtype": "float32", "version": "9.9"}),
    "torch eager-nhwc-bfloat16": (0.005, {"dtype": "bfloat16", "version": "9.9"}),
}
MODES_USED = ["eager-nchw-float32", "eager-nhwc-float32", "eager-nhwc-bfloat16", "compiled-nhwc-float32"]


class OfTable(Pretended):
    """Behaves as its row of SIDES says."""

    def behaviour(self):
        if self.name not in SIDES:
            return None
        seconds, facts = SIDES[self.name]
        return seconds, 1 if self.name == "product" else 100, dict(facts)


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    with pretending(monkeypatch, OfTable):
        yield


def settings(**changed: Any) -> Settings:
    given: dict[str, Any] = {"repetitions": 3, "call_seconds": 0.5, "allocator": "default", "fixed": FixedBatch(0, 0)}
    return Settings(**given | {"against": None, "modes": (), "ready_seconds": 60} | changed)


def test_ours_is_put_over_the_fastest_of_its_dtype():
    measured = measure_step(small_config(), settings(against="torch", modes=MODES_USED))
    json.dumps(measured)
    assert measured["step_images_per_sec"] == pytest.approx(10_000)
    assert measured["step_quartiles"] == pytest.approx((10_000, 10_000))
    # 20 ms over 10 ms; bfloat16 is quicker, but another dtype.
    assert measured["against"] == {"fastest": "torch eager-nhwc-float32", "ratio": pytest.approx(2)}
    assert measured["product_flops_per_sec"] == pytest.approx(1e11)
    rows = {row["name"]: row for row in measured["rows"]}
    assert list(rows) == ["ours", *(f"torch {mode}" for mode in MODES_USED)]
    # 10,000 images of 5 MFLOP are 5e10 of 1e11.
    assert rows["ours"]["share_of_product"] == pytest.approx(0.5)
    assert rows["torch eager-nchw-float32"]["ratio"] == pytest.approx(4)
    assert "share_of_product" not in rows["torch eager-nhwc-bfloat16"]
    assert "ratio" not in rows["torch eager-nhwc-bfloat16"]
    assert rows["torch compiled-nhwc-float32"] == {
        "name": "torch compiled-nhwc-float32",
        "note": "not ready after 60 s",
    }

    head, first, *_, note, ratio, _, machine, how = speed_table(measured)
    assert head.split()[:3] == ["step", "images/s", "quartiles"]
    assert squeezed(first) == "ours 10,000 10,000 - 10,000 - 50% 1.5 s 2.00 GB -"
    assert note.endswith("not measured: not ready after 60 s")
    assert ratio == "ours over the fastest of the same dtype (torch eager-nhwc-float32): 2.00"
    assert "torch 9.9" in machine
    assert how.startswith("3 calls of each in turn")


def test_without_modes_all_are_put_beside():
    measured = measure_step(small_config(), settings(against="torch"))
    assert [row["name"] for row in measured["rows"]] == ["ours", *(f"torch {mode}" for mode in MODES)]
    alone = measure_step(small_config(), settings())
    assert [row["name"] for row in alone["rows"]] == ["ours"]
    assert alone["against"] is None


def test_training_is_put_over_its_update():
    measured = measure_train(small_config(), settings())
    assert measured["train_images_per_sec"] == pytest.approx(5_000)
    assert measured["train_over_step"] == pytest.approx(0.5)
    assert [worker.build for worker in Pretended.made[:2]] == [build_train, build_step]
    assert "train over step: 0.50" in speed_table(measured)


def test_evaluation_is_of_one_pass():
    config = small_config()
    config.eval_flip = True
    measured = measure_eval(config, settings(against="torch", modes=MODES_USED[:1]))
    ours, theirs, _ = Pretended.made
    assert (ours.build, ours.arguments[0].eval_flip) == (build_eval, False)
    assert theirs.arguments[3] is False  # not training
    assert config.eval_flip
    assert measured["eval_images_per_sec"] == pytest.approx(10_000)


def test_what_cannot_be_compared_is_refused_at_once(monkeypatch):
    with pytest.raises(UserError, match="--modes is 'nosuch'"):
        measure_step(small_config(), settings(against="torch", modes=["nosuch"]))
    config = small_config()
    config.l2 = 0.1
    with pytest.raises(UserError, match="config.l2 is 0.1"):
        measure_step(config, settings(against="torch"))
    assert Pretended.made == []
    monkeypatch.setitem(SIDES, "ours", (0.01, OURS | {"devices": 8}))
    with pytest.raises(UserError, match="which is 8 here: .* set --config.devices=1"):
        measure_step(small_config(), settings(against="torch"))
    with pytest.raises(UserError, match="--modes is eager-nchw-float32: these are PyTorch's; add --against torch"):
        measure_step(small_config(), settings(modes=MODES_USED[:1]))


def test_a_side_that_is_lost_has_a_note_unless_it_was_required(monkeypatch):
    monkeypatch.setitem(SIDES, "torch eager-nhwc-float32", (None, {"dtype": "float32", "version": "9.9"}))
    measured = measure_step(small_config(), settings(against="torch", modes=MODES_USED))
    rows = {row["name"]: row for row in measured["rows"]}
    lost = {"name": "torch eager-nhwc-float32", "note": "its process ended with code -9"}
    assert rows["torch eager-nhwc-float32"] == lost
    assert measured["against"] == {"fastest": "torch eager-nchw-float32", "ratio": pytest.approx(4)}
    assert [worker.calls for worker in Pretended.made if worker.name == "torch eager-nhwc-float32"] == [1]
    monkeypatch.setitem(SIDES, "ours", (None, OURS))
    with pytest.raises(UserError, match="^ours: its process ended with code -9$"):
        measure_step(small_config(), settings())
    monkeypatch.delitem(SIDES, "product")
    with pytest.raises(UserError, match="product: not ready after 60 s"):
        measure_step(small_config(), settings())


def test_numbers_have_three_digits():
    assert [significant(value) for value in (12345.6, 123.4, 45.67, 1.234)] == ["12,346", "123", "45.7", "1.23"]


@pytest.mark.filterwarnings("error::RuntimeWarning")  # of an axis without extent
def test_scaling_walks_each_axis(monkeypatch, tmp_path):
    def run(config, how):
        if config.model.kernel_size == 9:
            return {"name": "ours", "note": "too large"}
        work = config.model.depth * config.model.kernel_size
        rates = {"images_per_sec": 600 / work, "quartiles": (500 / work, 700 / work)}
        return {"name": "ours", **rates, "flops_per_image": 1e6 * work, "provenance": WHERE}

    asked = []
    monkeypatch.setattr(scaling, "measure_point", lambda config, how: asked.append(config) or run(config, how))
    axes = {"batch_size": [6, 12], "depth": [1, 2], "kernel_size": [3, 9]}
    measured = measure_scaling(small_config(), settings(), axes)
    assert len(asked) == 4  # the config's own point, which is on every axis, once
    places = [(row["axis"], row["value"], row.get("images_per_sec")) for row in measured["rows"]]
    assert places == [
        ("batch_size", 6, 200), ("batch_size", 12, 200), ("depth", 1, 200), ("depth", 2, 100),
        ("kernel_size", 3, 200), ("kernel_size", 9, None),
    ]  # fmt: skip
    assert measured["base"] == {"batch_size": 6, "depth": 1, "kernel_size": 3}
    lines = scaling_table(measured)
    assert squeezed(lines[4]) == "depth 2 100 83.3 - 117 1"
    assert squeezed(lines[6]) == "kernel_size 9 not measured: too large"
    for name in ("a.png", "a.svg"):
        check_picture(tmp_path / name)
        draw(measured, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert (tmp_path / "a.svg").read_text().count('<g id="axes_') == 3


def test_a_point_that_cannot_be_measured_has_a_note(monkeypatch):
    monkeypatch.setitem(SIDES, "ours", (None, OURS))
    with pytest.raises(UserError, match="no point could be measured; the first: its process ended with code -9"):
        measure_scaling(small_config(), settings(), {"depth": [1]})
    monkeypatch.delitem(SIDES, "ours")
    with pytest.raises(UserError, match="no point could be measured; the first: not ready after 60 s"):
        measure_scaling(small_config(), settings(), {"depth": [1]})

    def refuse(self, seconds):
        raise UserError("config.model.kernel_size is 9: too large")

    monkeypatch.setattr(OfTable, "wait_until_ready", refuse)
    assert scaling.measure_point(small_config(), settings())["note"].endswith("too large")


def test_looking_whether_a_picture_can_be_written_leaves_no_trace(tmp_path):
    there, link = tmp_path / "there.png", tmp_path / "link.png"
    there.write_text("an older picture")
    link.symlink_to(tmp_path / "behind.png")
    for path in (there, link, tmp_path / "new.png"):
        check_picture(path)
    assert there.read_text() == "an older picture"
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, there]


def test_a_picture_is_refused_before_measuring(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="must end in one of .png, .svg, .pdf"):
        check_picture(tmp_path / "a.gif")
    with pytest.raises(UserError, match="there is no folder"):
        check_picture(tmp_path / "none/a.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(UserError, match=r"folder.png: it cannot be written \(Is a directory\); name a new file"):
        check_picture(folder)
    with pytest.raises(UserError, match="--plot /dev/fd/a.png: it cannot be written"):
        check_picture(Path("/dev/fd/a.png"))
    monkeypatch.setattr(scaling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="matplotlib is not installed"):
        check_picture(tmp_path / "a.png")
