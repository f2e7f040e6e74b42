"""Every mistake on the command line or in a recipe ends with exit code 2 and one line that names it and a way out."""

import os
import subprocess
import sys

import jax
import pytest

from convmixer_jax.config import flatten, get_base
from convmixer_jax.errors import ExitCode
from convmixer_jax.main import main
from convmixer_jax.training import runner
from tests.commands import DIGITS, ROOT, SMALL

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")


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
    "data set": (["--config.dataset=mnist"], ["config.dataset is 'mnist'", "choose one of cifar10, cifar100"]),
    "variant": (["--config.model.variant=convmixr"], ["config.model.variant is 'convmixr' (did you mean convmixer?)"]),
    "activation": (["--config.model.activation=tanh"], ["config.model.activation is 'tanh'", "one of gelu, relu"]),
    "initializer": (["--config.model.initializer=he"], ["config.model.initializer is 'he'", "pytorch, lecun_normal"]),
    "operations": (
        ["--config.model.ops=channel_mayor"],
        ["config.model.ops is 'channel_mayor' (did you mean channel_major?)", "auto, reference"],
    ),
    "operations of another platform": (
        ["--config.model.ops=pallas"],
        ["config.model.ops is 'pallas'", "this platform is cpu", "take 'auto' or 'reference'"],
    ),
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
    "micro-batches not even": (
        ["--config.accumulate_steps=3", "--config.devices=8"],
        ["config.accumulate_steps is 3", "each of the 8 devices has 8 examples", "a divisor of that"],
    ),
    "split over too many": (
        ["--config.fsdp_devices=3", "--config.devices=8"],
        ["config.fsdp_devices is 3", "must divide the 8 devices", "1 is always"],
    ),
    "pairs not even": (
        ["--config.batch_size=56", "--config.devices=8", "--config.mixing.cutmix_alpha=1"],
        ["config.batch_size is 56", "each of the 8 needs an even number", "config.mixing.mixup_alpha"],
    ),
    "no average to evaluate": (
        ["--config.eval_params=ema"],
        ["config.eval_params is 'ema'", "train with config.ema_decay", "'raw'"],
    ),
    "too many devices": (["--config.devices=99"], ["config.devices is 99: there are 8", "0 takes all"]),
    "subset above the data": (["--config.train_examples=1438"], ["config.train_examples is 1438", "0 takes all"]),
    "nothing left to train on": (["--config.val_fraction=0.9999"], ["config.val_fraction is 0.9999", "0"]),
    "patch above the image": (["--config.model.patch_size=9"], ["config.model.patch_size is 9", "8x8", "must fit"]),
    "kernel above the map": (
        ["--config.model.kernel_size=16"],
        ["config.model.kernel_size is 16", "8x8", "beyond a kernel of 15", "config.model.patch_size"],
    ),
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


def test_memory_that_will_not_fit(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "memory_limit", lambda devices: 100_000)  # enough for the digits: 1437 x 68 bytes
    line = refused(*DIGITS, *SMALL, "--config.augment.order=()")
    assert "config.batch_size is 64: an update needs" in line
    assert "there are 0.00 GB" in line
    assert not list(tmp_path.rglob("metrics.jsonl"))  # refused before the first update


def test_data_that_do_not_fit_beside_the_program(refused, monkeypatch):
    def fill(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(runner, "load_inputs", fill)
    line = refused(*DIGITS, *SMALL)
    assert "config.input is 'resident': there is not enough memory (RESOURCE_EXHAUSTED: Out of memory" in line
    assert line.endswith("try config.input=stream\n")


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
