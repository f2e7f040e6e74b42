"""Every mistake of a user ends with exit code 2 and one line that names the field or file and a way out."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.config import flatten, get_base, to_plain
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.sources.cifar import load_cifar10
from convmixer_jax.errors import ExitCode
from convmixer_jax.main import main
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.training import runner
from tests.data.archives import SPEC, archive_bytes, spec_with, write_archive, write_python_folder

ROOT = Path(__file__).parents[1]
DIGITS = ["--config", str(ROOT / "configs/digits.py")]
CIFAR = ["--config", str(ROOT / "configs/cifar10.py"), "--config.batch_size=10", "--config.epochs=1"]
# A model that is quickly traced, on one of the eight virtual devices, without a cache of programs.
SMALL = ["--config.model.dim=4", "--config.model.depth=1", "--config.devices=1", "--config.compilation_cache=False"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs write below a fresh folder, and nothing is left of the recipe that ml_collections read last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVMIXER_DATA_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)


@pytest.fixture
def refused(capsys):
    """Returns a function of the arguments to the one line that they are refused with."""

    def run(*arguments: str) -> str:
        code = main(["main", *arguments])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: "), err
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert code == 2
        return err

    return run


# Arguments after a sound --config, and what the line must say: the field with its value, and a way out.
ARGUMENTS = {
    # Misspelt
    "field": (["--config.bach_size=64"], ["--config.bach_size: there is no such field (did you mean batch_size?)"]),
    "field, apart": (["--config.bach_size", "64"], ["--config.bach_size", "did you mean batch_size?"]),
    "field of a group": (["--config.optimizer.weigth_decay=0"], ["did you mean optimizer.weight_decay?", "--help"]),
    "group": (["--config.modle.dim=8"], ["--config.modle.dim: there is no such field (did you mean model.dim?)"]),
    "field of a field": (["--config.batch_size.x=1"], ["--config.batch_size.x: there is no such field", "--help"]),
    "group as a field": (["--config.model=1"], ["--config.model: there is no such field", "--help"]),
    "flag": (["--wrkdir=x"], ["Unknown command line flag 'wrkdir'", "workdir", "--help"]),
    "flag, nothing near": (["--frobnicate"], ["Unknown command line flag 'frobnicate'", "--help"]),
    "mode": (["--mode=foo"], ["--mode=foo", "train|eval"]),
    "stray argument": (["train"], ["'train' is not understood", "--flag", "--help"]),
    # Of the wrong kind
    "string for int": (["--config.batch_size=big"], ["--config.batch_size=big", "int"]),
    "float for int": (["--config.epochs=1.5"], ["--config.epochs=1.5", "int"]),
    "list for float": (["--config.schedule.learning_rate=[1, 2]"], ["--config.schedule.learning_rate", "float"]),
    "word for bool": (["--config.compilation_cache=maybe"], ["--config.compilation_cache=maybe", "oolean"]),
    "number for names": (["--config.augment.order=(1,)"], ["config.augment.order is (1,)", "names in a tuple"]),
    "word for numbers": (["--config.mean=red"], ["config.mean", "red"]),
    "word for a step": (["--mode=eval", "--step=last"], ["--step=last", "int"]),
    "step while training": (["--step=3"], ["--step is 3", "--mode eval"]),
    # Out of range
    "batch of 0": (["--config.batch_size=0"], ["config.batch_size is 0", "a number from 1 to"]),
    "negative batch": (["--config.batch_size=-64"], ["config.batch_size is -64", "a number from 1 to"]),
    "no learning rate": (["--config.schedule.learning_rate=nan"], ["config.schedule.learning_rate is nan", "above 0"]),
    "beyond arithmetic": (
        ["--config.model.dim=100000000000"],
        ["config.model.dim is 1000", "a number from 1 to 65536"],
    ),
    "yes for a number": (["--config.mean=(True,)"], ["config.mean is (True,)", "numbers from 0 to 1"]),
    "nobody's home": (["--workdir=~nobody-of-this-name/x"], ["--workdir ~nobody-of-this-name/x", "give the path"]),
    "flag file": (["--flagfile=/nonexistent"], ["/nonexistent", "--help"]),
    "all to validate": (["--config.val_fraction=1"], ["config.val_fraction is 1.0", "from 0 to below 1"]),
    "dtype": (["--config.dtype=float16"], ["config.dtype is 'float16'", "float32 or bfloat16"]),
    # No row of a table
    "data set": (["--config.dataset=mnist"], ["config.dataset is 'mnist'", "choose one of cifar10, digits"]),
    "variant": (["--config.model.variant=convmixr"], ["config.model.variant is 'convmixr' (did you mean convmixer?)"]),
    "activation": (["--config.model.activation=tanh"], ["config.model.activation is 'tanh'", "one of gelu, relu"]),
    "initializer": (["--config.model.initializer=he"], ["config.model.initializer is 'he'", "pytorch, lecun_normal"]),
    "optimizer": (["--config.optimizer.name=sgd"], ["config.optimizer.name is 'sgd'", "choose one of adamw"]),
    "decay mask": (["--config.optimizer.decay_mask=no"], ["config.optimizer.decay_mask is 'no'", "all, kernels"]),
    "schedule": (["--config.schedule.name=cosin"], ["config.schedule.name is 'cosin' (did you mean cosine?)"]),
    "augmentation": (["--config.augment.order=('flip',)"], ["config.augment.order is 'flip'", "horizontal_flip"]),
    "augmentation twice": (
        ["--config.augment.order=('horizontal_flip', 'horizontal_flip')"],
        ["config.augment.order is", "each augmentation may stand in it once"],
    ),
    "padding mode": (
        ["--config.augment.pad_and_crop.mode=edge"],
        ["config.augment.pad_and_crop.mode is 'edge'", "choose one of zero, reflect"],
    ),
    "interpolation": (
        [
            "--config.augment.order=('random_resized_crop',)",
            "--config.augment.random_resized_crop.interpolation=nearest",
        ],
        ["config.augment.random_resized_crop.interpolation is 'nearest'", "choose one of bilinear, bicubic"],
    ),
    # Sound alone, but not together
    "batch above the data": (["--config.batch_size=1438"], ["config.batch_size is 1438", "1437 examples", "at most"]),
    "batch above the subset": (["--config.train_examples=63"], ["config.batch_size is 64", "63 examples", "at most"]),
    "padding above the image": (
        ["--config.augment.pad_and_crop.pixels=9"],
        ["config.augment.pad_and_crop.pixels is 9", "at most the image's side, 8"],
    ),
    "batch not divisible": (
        ["--config.batch_size=60", "--config.devices=8"],
        ["config.batch_size is 60", "a multiple of the 8 devices", "config.devices"],
    ),
    "too many devices": (["--config.devices=99"], ["config.devices is 99: there are 8", "0 takes all"]),
    "subset above the data": (["--config.train_examples=1438"], ["config.train_examples is 1438", "0 takes all"]),
    "nothing left to train on": (["--config.val_fraction=0.9999"], ["config.val_fraction is 0.9999", "0"]),
    "patch above the image": (["--config.model.patch_size=9"], ["config.model.patch_size is 9", "8x8", "must fit"]),
    "mean of three channels": (["--config.mean=(.5, .5, .5)"], ["config.mean is (0.5, 0.5, 0.5)", "1 channel"]),
    "std of three channels": (["--config.std=(.5, .5, .5)"], ["config.std is (0.5, 0.5, 0.5)", "1 channel"]),
    "reflected beyond the image": (
        ["--config.augment.pad_and_crop.mode=reflect", "--config.augment.pad_and_crop.pixels=8"],
        ["config.augment.pad_and_crop.pixels is 8", "'reflect'", "below the image's side (8)"],
    ),
    "warm-up of the whole run": (
        ["--config.schedule.name=cosine", "--config.schedule.warmup_epochs=20"],
        ["config.schedule.warmup_epochs is 20.0", "below config.epochs, which is 20"],
    ),
    # Folders
    "evaluation of no run": (["--mode=eval", "--workdir=new"], ["--workdir new holds no run", "--mode train"]),
}


@pytest.mark.parametrize("arguments, words", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_bad_argument(refused, tmp_path, arguments, words):
    line = refused(*DIGITS, *SMALL, *arguments)
    assert [word for word in words if word not in line] == [], line
    assert list(tmp_path.iterdir()) == []  # nothing was begun


CONFIG_FLAGS = {
    "missing": ([], ["--config is missing", "configs/digits.py"]),
    "without a value": (["--config"], ["--config", "e.g. configs/digits.py"]),
    "empty": (["--config="], ["--config", "e.g. configs/digits.py"]),
    "no such file": (["--config=configs/none.py"], ["--config configs/none.py: there is no such file", "e.g."]),
    "a folder": ([f"--config={ROOT / 'configs'}"], [f"--config {ROOT / 'configs'}", "e.g. configs/digits.py"]),
    "no such file, but fields": (
        ["--config", "none.py", "--config.batch_size=1"],
        ["--config none.py: there is no such file"],
    ),
}


@pytest.mark.parametrize("arguments, words", CONFIG_FLAGS.values(), ids=CONFIG_FLAGS)
def test_no_recipe(refused, arguments, words):
    line = refused(*arguments)
    assert [word for word in words if word not in line] == [], line


START = "from convmixer_jax.config import get_base\ndef get_config():\n    config = get_base()\n"
RECIPES = {
    "True for a number": (f"{START}    config.batch_size = True\n    return config\n", ["config.batch_size is True"]),
    "an exit": (f"{START}    import sys\n    sys.exit(0)\n", ["0", "configs/digits.py"]),
    "typo in a field": (f"{START}    config.bach_size = 1\n    return config\n", ["bach_size", "batch_size"]),
    "typo in a field of a group": (
        f"{START}    config.optimizer.weigth_decay = 0.0\n    return config\n",
        ["weigth_decay", "did you mean weight_decay?"],
    ),
    "typo in a group": (
        f"{START}    config.optimiser.weight_decay = 0.0\n    return config\n",
        ["optimiser", "optimizer"],
    ),
    "typo in a name": (f"{START}    config.epochs = epohcs\n    return config\n", ["epohcs"]),
    "syntax error": (f"{START}    config.epochs ==== 1\n    return config\n", ["invalid syntax", "line 4"]),
    "no get_config": ("x = 1\n", ["get_config"]),
    "string for int": (f"{START}    config.batch_size = 'big'\n    return config\n", ["batch_size", "big", "int"]),
    "list for float": (f"{START}    config.optimizer.eps = [1]\n    return config\n", ["eps", "[1]", "float"]),
    "None for int": (f"{START}    config.batch_size = None\n    return config\n", ["config.batch_size is None"]),
    "missing package": ("import no_such_package\n", ["no_such_package"]),
    "division by zero": (f"{START}    config.epochs = 1 // 0\n    return config\n", ["division"]),
    "nothing returned": (START, ["get_config", "None"]),
    "a dict": ("def get_config():\n    return {'batch_size': 1}\n", ["get_config", "get_base"]),
    "a config of its own": (
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'batch_size': 1})\n",
        ["get_base"],
    ),
    "a field of its own": (
        f"{START}    config.unlock()\n    config.mixup_alpha = 0.5\n    return config\n",
        ["mixup_alpha"],
    ),
}


@pytest.mark.parametrize("source, words", RECIPES.values(), ids=RECIPES)
def test_a_bad_recipe(refused, tmp_path, source, words):
    (tmp_path / "my_recipe.py").write_text(source)
    line = refused("--config", "my_recipe.py")
    in_range = "config.batch_size is" in line  # the command line may have set it as well as the recipe
    assert [word for word in words if word not in line] == [], line
    assert in_range or "my_recipe.py" in line, line
    assert not (tmp_path / "runs").exists()


def test_a_process_ends_with_code_2_and_nothing_but_the_line(tmp_path):
    # As a user sees it, with the log lines that pytest would hide.
    (tmp_path / "recipe.py").write_text(START)
    for arguments in (["--config", "recipe.py"], [*DIGITS, "--config.bach_size=1"]):
        command = [sys.executable, "-m", "convmixer_jax.main", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_workdir_that_cannot_be_made(refused, tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    line = refused(*DIGITS, *SMALL, "--workdir", folder)
    assert f"--workdir {folder} cannot be written" in line
    assert "name a folder that can" in line
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_workdir_that_cannot_be_evaluated(refused, tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    line = refused(*DIGITS, *SMALL, "--workdir", folder, "--mode=eval")
    assert f"{folder}/config.json" in line
    assert "use another --workdir" in line


def record_of(arguments: list[str]) -> dict:
    """The beginning of the config.json that a run with these arguments leaves."""
    return {"config": to_plain(parse(["main", *arguments]).config)}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_workdir_of_another_run(refused, tmp_path, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    line = refused(*DIGITS, *SMALL, "--config.model.depth=2", "--config.seed=7", "--workdir=run", f"--mode={mode}")
    assert "--workdir run holds another run (config.model.depth: 1 -> 2; config.seed: 0 -> 7)" in line
    assert "use another --workdir" in line


GARBAGE = {
    "no JSON": b"batch_size: 64",
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "null": b"null",
    "no config": b"{}",
    "config of another kind": b'{"config": 64}',
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_workdir_whose_config_is_garbage(refused, tmp_path, content, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(content)
    line = refused(*DIGITS, *SMALL, "--workdir=run", f"--mode={mode}")
    assert "config.json" in line
    assert "use another --workdir" in line
    assert (tmp_path / "run/config.json").read_bytes() == content


def test_evaluation_before_any_checkpoint(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    for _ in range(2):
        line = refused(*DIGITS, *SMALL, "--workdir=run", "--mode=eval")
        assert "--workdir run has no checkpoint: train first (--mode train)" in line
        (tmp_path / "run/checkpoints").mkdir(exist_ok=True)


def test_a_step_that_was_not_saved(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", keep=2)
    for step in (5, 10):
        checkpoints.save(step, {"x": np.zeros(1)}, {})
    checkpoints.close()
    line = refused(*DIGITS, *SMALL, "--workdir=run", "--mode=eval", "--step=7")
    assert "--step is 7: run has checkpoints of steps 5, 10" in line


@pytest.fixture
def small_cifar(monkeypatch):
    """CIFAR-10 with 60 and 10 images, whose only URL is a port of this machine that nobody listens to."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    spec = spec_with(urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",))
    sizes = {split: spec.num_examples(split) for split in spec.files}
    row = dataclasses.replace(
        DATASETS["cifar10"], load=lambda data_dir, split: load_cifar10(data_dir, split, spec), num_examples=sizes
    )
    monkeypatch.setitem(DATASETS, "cifar10", row)


def test_missing_data(refused, tmp_path, small_cifar):
    (tmp_path / "empty").mkdir()
    line = refused(*CIFAR, *SMALL, "--data_dir=empty")
    for words in ("CIFAR-10 is not in empty", "127.0.0.1:9", "--data_dir", "$CONVMIXER_DATA_DIR", "configs/digits.py"):
        assert words in line


def test_a_data_dir_that_is_a_file(refused, tmp_path, small_cifar):
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused(*CIFAR, *SMALL, "--data_dir=file")


ARCHIVE = archive_bytes()
MIDDLE = len(ARCHIVE) // 2
BAD_ARCHIVES = {
    "truncated": ARCHIVE[:MIDDLE],
    "one byte changed": ARCHIVE[:MIDDLE] + bytes([ARCHIVE[MIDDLE] ^ 255]) + ARCHIVE[MIDDLE + 1 :],
    "no archive": b"<html>404 Not Found</html>",
}


@pytest.mark.parametrize("content", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_damaged_archive(refused, tmp_path, small_cifar, content):
    write_archive(tmp_path / "data")
    (tmp_path / "data" / SPEC.archive).write_bytes(content)
    line = refused(*CIFAR, *SMALL, "--data_dir=data")
    assert f"data/{SPEC.archive} is damaged" in line
    assert "run again to download it" in line


class Hostile:
    """Its pickle makes a file when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_hostile_pickle_is_not_executed(refused, tmp_path, small_cifar):
    write_python_folder(tmp_path / "data")
    (tmp_path / "data" / SPEC.python_folder / "data_batch_2").write_bytes(pickle.dumps(Hostile()))
    line = refused(*CIFAR, *SMALL, "--data_dir=data")
    assert f"data/{SPEC.python_folder}/data_batch_2 asks for posix.mkdir" in line
    assert "nothing in it was run" in line
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / "executed").exists()  # so it is hostile indeed


def test_the_default_data_dir_is_that_of_the_environment(tmp_path, monkeypatch):
    assert parse(["main", *DIGITS]).data_dir == Path("~/.cache/convmixer_jax").expanduser()
    monkeypatch.setenv("CONVMIXER_DATA_DIR", str(tmp_path / "there"))
    assert parse(["main", *DIGITS]).data_dir == tmp_path / "there"
    assert parse(["main", *DIGITS, "--data_dir=~/here"]).data_dir == Path.home() / "here"


def test_missing_data_of_the_environment(refused, tmp_path, small_cifar, monkeypatch):
    monkeypatch.setenv("CONVMIXER_DATA_DIR", str(tmp_path / "there"))
    assert f"CIFAR-10 is not in {tmp_path / 'there'} " in refused(*CIFAR, *SMALL)


def test_the_data_of_the_run_were_others(refused, tmp_path, small_cifar):
    write_archive(tmp_path / "data")
    (tmp_path / "run").mkdir()
    record = record_of([*CIFAR, *SMALL]) | {"data_digest": "0" * 64}
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    line = refused(*CIFAR, *SMALL, "--data_dir=data", "--workdir=run")
    assert "--workdir run was trained on other data (SHA-256 000000000000..., now " in line
    assert "give the --data_dir it began with, or use another --workdir" in line


def test_help_answers_with_everything_that_can_be_given(capsys):
    assert main(["main", "--help"]) == ExitCode.DONE
    text, err = capsys.readouterr()
    assert err == ""
    for flag in ("--config FILE", "--workdir DIR", "--data_dir DIR", "--mode train|eval", "--step N"):
        assert flag in text
    for code in ExitCode:
        assert f"{int(code)} " in text.partition("Exit codes:")[2].partition("Examples:")[0]
    for name, value in flatten(get_base()):
        assert f"\n  --config.{name}={value!r}\n" in f"{text}\n"
    assert "configs/digits.py" in text


def test_help_comes_before_jax_and_before_any_mistake(tmp_path):
    source = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from convmixer_jax.main import main\n"
        "code = main(['main', '--config', 'none.py', '--help'])\n"
        "print(int(code), [name for name in ('jax', 'numpy', 'tensorflow') if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", source, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "0 []\n"
    assert "--config.batch_size=512" in done.stdout


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runner, "train", broken)
    assert main(["main", *DIGITS, *SMALL]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("RuntimeError: a bug\n")
    assert "error: " not in err.partition("Traceback")[0]


@pytest.fixture
def trained(tmp_path) -> Path:
    """A workdir of one epoch, two checkpoints, whose evaluation batch is far larger than its split."""
    assert main(["main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--config.eval_batch_size=1000000"]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["n"] == 360
    return tmp_path / "run"


ONE_EPOCH = ["--config.epochs=1", "--config.checkpoint_every_steps=11"]


def test_a_damaged_checkpoint(refused, trained, capsys):
    capsys.readouterr()
    largest = max((trained / "checkpoints/22").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(largest.read_bytes()[:100])
    (trained / "result.json").unlink()
    for mode in ("train", "eval"):
        line = refused(*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", f"--mode={mode}")
        for words in ("run/checkpoints/22 is damaged", "move it away to go on from step 11"):
            assert words in line
    (trained / "checkpoints/22").rename(trained / "damaged")
    assert main(["main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]) == 0
    assert "going on from step 11" in capsys.readouterr().err


def test_a_refused_start_leaves_the_record_as_it_was(refused, trained, capsys):
    capsys.readouterr()
    for name in ("config.json", "result.json"):
        (trained / name).unlink()
    line = refused(*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--config.seed=9")
    assert "was made with another config than the one asked for" in line
    assert not (trained / "config.json").exists()


def test_a_workdir_in_use(refused, tmp_path):
    (tmp_path / "run").mkdir()
    with WorkdirLock(tmp_path / "run"):
        line = refused(*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run")
    assert f"--workdir run is in use by process {os.getpid()} on " in line
    assert main(["main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]) == 0


ENVIRONMENTS = {
    "no such platform": {"JAX_PLATFORMS": "foo"},
    "no number": {"JAX_NUM_CPU_DEVICES": "abc"},
    "no plugin": {"JAX_PLATFORMS": "cuda"},
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_without_devices(tmp_path, variables):
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: JAX cannot start (")
    assert next(iter(variables.values())) in last
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads_is_no_bug(tmp_path):
    shell = f"{sys.executable} -m convmixer_jax.main --help | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1 where the reader had gone before the help was written


def test_a_run_without_standard_error_goes_on(tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]
    shell = f"{' '.join(command)} 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "run/result.json").exists()


def test_a_run_whose_watcher_went_away_goes_on(tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "run/result.json").exists()


def test_a_result_that_nobody_reads_is_no_bug(trained, tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--mode=eval"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(timeout=120) == 1
    assert "Traceback" not in told


FULL_DISK = """
import errno, sys
from convmixer_jax import main
from convmixer_jax.runs import metrics_log

def full(self, row):
    raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

metrics_log.MetricsLog.write = full
sys.exit(main.main(["main", *sys.argv[1:]]))
"""


def test_a_full_disk(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: No space left on device (metrics.jsonl): free some, run again"
    assert "Traceback" not in done.stderr
