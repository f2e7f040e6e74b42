"""The smallest real run from the command line to its files, and the evaluation of what it saved."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from convmixer_jax.benchmarks import startup
from convmixer_jax.command_line import parse
from convmixer_jax.config import flatten
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.main import main
from convmixer_jax.runs.pictures import load_picture
from convmixer_jax.runs.provenance import git_revision
from tests.commands import CPU_OPS
from tests.data.archives import SPEC, write_archive

ROOT = Path(__file__).parents[1]

# 200 of the digits, of which 144 others validate: 10 updates in each of 2 epochs.
ARGUMENTS = [
    f"--config={ROOT / 'configs/digits.py'}",
    "--config.val_fraction=0.1",
    "--config.train_examples=200",
    "--config.batch_size=20",
    "--config.epochs=2",
    "--config.eval_every_epochs=1",
    "--config.report_every_steps=8",
    "--config.checkpoint_every_steps=10",
    "--config.model.dim=8",
    "--config.model.depth=1",
    "--config.compilation_cache=False",
]


def command_line(cwd: Path, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "convmixer_jax.main", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@dataclasses.dataclass(frozen=True)
class Run:
    cwd: Path
    stdout: str
    stderr: str

    @property
    def workdir(self) -> Path:
        return self.cwd / "runs/digits"

    def json(self, name: str) -> dict:
        return json.loads((self.workdir / name).read_text())

    def files(self) -> dict[Path, tuple[int, str]]:
        return {
            path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in self.workdir.rglob("*")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    cwd = tmp_path_factory.mktemp("cwd")
    done = command_line(cwd, *ARGUMENTS)
    return Run(cwd, done.stdout, done.stderr)


def test_the_files_are_in_a_folder_named_after_the_recipe(run):
    assert [path.name for path in (run.cwd / "runs").iterdir()] == ["digits"]
    assert {path.name for path in run.workdir.iterdir()} == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "ledger.jsonl",
        "tensorboard",
        "checkpoints",
        "augmented.png",
        "result.json",
    }
    assert [path.name[:19] for path in (run.workdir / "tensorboard").iterdir()] == ["events.out.tfevents"]
    assert sorted(path.name for path in (run.workdir / "checkpoints").iterdir()) == ["10", "20"]
    assert load_picture(run.workdir / "augmented.png").shape == (3 * 64, 8 * 64, 3)  # a batch of 20, 8 in a row


def test_the_config_is_the_resolved_one(run):
    record = run.json("config.json")
    fields = dict(flatten(record["config"]))
    assert sorted(fields) == sorted(name for name, _ in flatten(parse(["main", *ARGUMENTS]).config))
    told = {"val_fraction": 0.1, "train_examples": 200, "epochs": 2, "model.dim": 8}  # on the command line,
    told |= {"schedule.learning_rate": 0.02, "augment.order": ["pad_and_crop"]}  # in the recipe
    told |= {"seed": 0, "optimizer.eps": 1e-8}  # and nowhere but in the base
    assert {name: fields[name] for name in told} == told


def test_the_config_says_what_ran_it(run):
    record = run.json("config.json")
    assert record["versions"]["jax"] == jax.__version__
    assert record["devices"] == ["cpu"]
    revision = record["git_revision"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision) if git_revision() else revision is None
    digits = DATASETS["digits"]
    train = load_split(digits, "train", Path(), val_fraction=0.1, train_examples=200)
    sha = hashlib.sha256(train.image.tobytes() + train.label.astype("<i4").tobytes())
    assert record["data_digest"] == sha.hexdigest()


def test_the_rows_of_the_metrics(run):
    rows = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if "eval/split" in row]
    reports = [row for row in rows if "eval/split" not in row]
    assert [(row["step"], row["epoch"]) for row in reports] == [(8, 0.8), (16, 1.6), (20, 2.0)]
    for row in reports:
        assert row.keys() >= {
            "step",
            "epoch",
            "train/loss",
            "train/top1",
            "schedule/learning_rate",
            "norm/grad",
            "perf/images_per_sec",
            "perf/input_wait",
        }
        assert 0 < row["train/loss"] < 10
        assert 0 <= row["train/top1"] <= 1
        assert row["perf/images_per_sec"] > 0
        assert 0 <= row["perf/input_wait"] < 1
    # The authors' triangle over 2 epochs has its knots at epochs 0, 0, 1 and 2: peak, peak/20 after the first epoch.
    rates = [row["schedule/learning_rate"] for row in reports]
    assert rates == pytest.approx([0.02 * (1 - 0.95 * 0.8), 0.001 * 0.4, 0], abs=1e-8)
    found = [(row["step"], row["eval/split"], row["eval/n"]) for row in evaluations]
    assert found == [(10, "val", 144), (20, "val", 144), (20, "test", 360)]
    assert all(row.keys() == {"step", "epoch", *(f"eval/{name}" for name in NAMES)} for row in evaluations)


NAMES = ("split", "n", "top1", "top5", "loss")


def test_the_result_is_of_the_last_step_on_the_test_split(run):
    result = run.json("result.json")
    *_, val, test = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [result[name] for name in NAMES] == [test[f"eval/{name}"] for name in NAMES]
    assert (result["split"], result["n"], result["step"], result["epochs"]) == ("test", 360, 20, 2)
    assert result["params"] == 1 * 8 + 3 * 8 + (9 * 8 + 8 * 8 + 6 * 8) + 8 * 10 + 10
    assert result["val_top1"] == val["eval/top1"] <= result["best_val_top1"]
    # Fractions of whole numbers of images: of the test's, and of the 200 of the last epoch.
    for images, name in ((360, "top1"), (360, "top5"), (200, "train_top1")):
        assert result[name] * images == pytest.approx(round(result[name] * images), abs=1e-9)
        assert 0 <= result[name] <= 1
    assert result["top1"] <= result["top5"]
    assert result["seconds"] >= 2 * result["seconds_per_epoch"] > 0
    assert result["images_per_sec"] == pytest.approx(200 / result["seconds_per_epoch"])
    assert len(result["per_class_top1"]) == 10
    assert 1e8 < result["peak_host_bytes"] < 1e10
    assert result["peak_device_bytes"] is None  # the CPU does not count


def test_what_a_person_reads(run):
    assert run.stdout == ""
    assert f"operations: {CPU_OPS}" in run.stderr
    assert "digits: 200 training images, 20 updates of 20 on 1 x cpu, from fresh weights" in run.stderr
    program = (
        "program of the updates: newly compiled in .* s, the cache of compiled programs is off; memory on each device: "
    )
    assert re.search(rf"^{program}0\.\d\d GB of \d+\.\d\d GB, 0\.\d\d GB state", run.stderr, re.MULTILINE)
    told = startup.LINE.search(run.stderr)
    assert told
    parts = {name: float(seconds) for name, seconds in startup.PART.findall(told[1])}
    assert list(parts) == ["imports", "assembly", "data", "weights", "compilation", "first update"]
    # Each is rounded to 0.1 s.
    assert float(told[0].split()[-2]) == pytest.approx(sum(parts.values()), abs=0.05 * (len(parts) + 1))
    assert len(re.findall(r"^step \d+/20  epoch .* images/s  \d:\d\d:\d\d left$", run.stderr, re.MULTILINE)) == 3
    assert run.stderr.splitlines()[-1].startswith("finished: test top1 ")
    assert "WARNING" not in run.stderr
    assert "Traceback" not in run.stderr


def evaluate_here(monkeypatch, capsys, cwd: Path, *arguments: str) -> dict:
    """Evaluates in this process, which has eight devices, and returns the last line of standard output."""
    monkeypatch.chdir(cwd)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    assert main(["main", *arguments, "--mode=eval"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def assert_same(printed: dict, result: dict) -> None:
    for name in ("split", "n", "step", "epochs", "params", "top1", "top5", "train_top1", "per_class_top1"):
        assert printed[name] == result[name], name
    assert printed["loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert printed["eval_seconds"] > 0


def test_evaluation_prints_the_result_of_the_run(run, monkeypatch, capsys):
    before = run.files()
    printed = evaluate_here(monkeypatch, capsys, run.cwd, *ARGUMENTS, "--config.devices=1")
    assert_same(printed, run.json("result.json"))
    assert run.files() == before  # and writes nothing


def test_evaluation_in_a_fresh_process_with_two_devices_and_other_batches(run):
    before = run.files()
    arguments = [*ARGUMENTS, "--mode=eval", "--config.devices=2", "--config.eval_batch_size=7"]
    done = command_line(run.cwd, *arguments, devices=2)
    assert_same(json.loads(done.stdout.splitlines()[-1]), run.json("result.json"))
    assert run.files() == before


def test_an_older_checkpoint_is_evaluated_on_five_devices(run, monkeypatch, capsys):
    before = run.files()
    arguments = [*ARGUMENTS, "--config.devices=5"]
    older = evaluate_here(monkeypatch, capsys, run.cwd, *arguments, "--step=10")
    assert_same(evaluate_here(monkeypatch, capsys, run.cwd, *arguments, "--step=20"), run.json("result.json"))
    assert (older["step"], older["epochs"], older["n"]) == (10, 1, 360)
    assert abs(older["loss"] - run.json("result.json")["loss"]) > 1e-3
    assert run.files() == before


def test_a_finished_run_says_so(run, monkeypatch, capsys):
    monkeypatch.chdir(run.cwd)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    before = run.files()
    assert main(["main", *ARGUMENTS, "--config.devices=1"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    top1 = run.json("result.json")["top1"]
    assert err == f"runs/digits is finished: step 20, test top1 {top1:.4f}; nothing to do\n"
    assert run.files() == before


def test_evaluation_needs_the_test_images_alone(tmp_path, monkeypatch, capsys):
    # CIFAR-10 with 60 and 10 images.
    row = dataclasses.replace(
        DATASETS["cifar10"],
        load=lambda data_dir, split: Examples(*load_cifar(data_dir, split, SPEC)),
        num_examples={split: SPEC.num_examples(split) for split in SPEC.files},
    )
    monkeypatch.setitem(DATASETS, "cifar10", row)
    monkeypatch.chdir(tmp_path)
    arguments = [
        f"--config={ROOT / 'configs/cifar10_fast.py'}",
        "--config.batch_size=20",
        "--config.epochs=1",
        "--config.model.dim=4",
        "--config.model.depth=1",
        "--config.model.patch_size=16",
        "--config.model.kernel_size=1",
        "--config.augment.order=()",
        "--config.devices=1",
        "--config.compilation_cache=False",
    ]
    write_archive(tmp_path / "whole")
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    monkeypatch.setenv("CONVMIXER_DATA_DIR", str(tmp_path / "whole"))
    assert main(["main", *arguments]) == 0
    capsys.readouterr()
    result = json.loads((tmp_path / "runs/cifar10_fast/result.json").read_text())
    assert (result["n"], result["step"]) == (10, 3)

    write_archive(tmp_path / "half", names=("test_batch",))
    printed = evaluate_here(monkeypatch, capsys, tmp_path, *arguments, "--data_dir=half")
    assert [printed[name] for name in NAMES] == [result[name] for name in NAMES]
