"""Imports point one way, and what is slow or dangerous to import stays out of where it is not needed."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_rules import MAY_IMPORT, ONLY_IN

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "convmixer_jax"


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yields the dotted name of everything that is imported, at the top or inside of functions.

    package: dotted name of the folder that the source lies in, for relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def violations(module: str, source: str) -> list[str]:
    """Returns what the file `module` (dotted, below the package) may not import but does."""
    rows = [row for row in MAY_IMPORT if is_in(module, row)]
    if not rows:
        return [f"{module} has no row in MAY_IMPORT"]
    row = max(rows, key=len)
    package = ".".join(["convmixer_jax", *module.split(".")[:-1]])
    wrong = []
    for name in imported_names(source, package):
        if name in ("convmixer_jax", "convmixer_jax.__version__"):  # for its version
            continue
        if is_in(name, "convmixer_jax"):
            name = name.removeprefix("convmixer_jax.")
            if not any(is_in(name, allowed) for allowed in (row, *MAY_IMPORT[row])):
                wrong.append(f"{module} imports {name}")
        elif not any(is_in(module, home) for home in ONLY_IN.get(name.split(".")[0], (module,))):
            wrong.append(f"{module} imports {name}")
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
del MODULES["__init__"]  # the package itself, of which more below


@pytest.mark.parametrize("module", [name for name in MODULES if name != "training"])
def test_imports_point_one_way(module):
    assert violations(module, MODULES[module].read_text()) == []


def test_training_imports_nothing_of_its_rooms():
    assert list(imported_names((PACKAGE / "training/__init__.py").read_text(), "convmixer_jax")) == []


def test_the_package_knows_only_how_weights_are_used():
    names = imported_names((PACKAGE / "__init__.py").read_text(), "convmixer_jax")
    own = {name for name in names if is_in(name, "convmixer_jax")}
    assert {name for name in own if not is_in(name, "convmixer_jax.inference")} == set()


def test_every_row_has_its_files():
    assert [row for row in MAY_IMPORT if not any(is_in(module, row) for module in MODULES)] == []
    homes = {home for row in ONLY_IN.values() for home in row}
    assert [home for home in homes if home not in MODULES] == []


PLANTED = {
    "sideways": ("models.convmixer", "from convmixer_jax.data.datasets import DATASETS", "data.datasets.DATASETS"),
    "sideways, in a function": ("data.order", "def f():\n    import convmixer_jax.runs.clock", "runs.clock"),
    "sideways, relative": ("augment.flips", "from ..models import variants", "models.variants"),
    "up": ("runs.files", "from convmixer_jax.training.loop import Loop", "training.loop.Loop"),
    "up to the room": ("models.variants", "from convmixer_jax import training", "training"),
    "leaf to leaf": ("training.optimizers", "from .schedules import SCHEDULES", "training.schedules.SCHEDULES"),
    "leaf to config": ("training.mesh", "from convmixer_jax import config", "config"),
    "step to model": ("training.step", "import convmixer_jax.models.convmixer", "models.convmixer"),
    "assembly to runs": ("training.assembly", "from convmixer_jax.runs import files", "runs.files"),
    "loop to runner": ("training.loop", "from convmixer_jax.training import runner", "training.runner"),
    "errors to config": ("errors", "from convmixer_jax.config import get_base", "config.get_base"),
    "anything to main": ("training.runner", "from convmixer_jax.main import parse", "main.parse"),
    "orbax in the loop": ("training.loop", "def f():\n    import orbax.checkpoint as ocp", "orbax.checkpoint"),
    "config dict in a leaf": ("training.step", "from ml_collections import ConfigDict", "ml_collections.ConfigDict"),
    "TensorFlow": ("data.resident", "import tensorflow as tf", "tensorflow"),
}


@pytest.mark.parametrize("module, source, name", PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(module, source, name):
    assert violations(module, f"import math\n{source}\n") == [f"{module} imports {name}"]


def test_a_new_file_of_training_needs_a_row():
    assert violations("training.extra", "import math") == ["training.extra has no row in MAY_IMPORT"]


def test_a_name_that_begins_like_a_room_is_another_one():
    assert violations("models.convmixer", "import convmixer_jax.models_old.x") == [
        "models.convmixer imports models_old.x"
    ]


def test_nothing_is_imported_by_a_computed_name():
    calls = {
        module: ast.unparse(node.func)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
    }
    assert calls == {}


# In fresh processes: this one has imported JAX already. Prints the watched packages that are loaded by then.
WATCH = """
import json, sys
def loaded():
    names = {"jax", "flax", "orbax", "tensorflow", "tensorflow_datasets", "torch", "sklearn", "tensorboard"}
    print(json.dumps(sorted(names & set(sys.modules))))
"""


def loaded_packages(source: str, cwd: Path) -> list[list[str]]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WATCH}{source}"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_commands_answer_before_jax_is_imported(tmp_path):
    names = [
        "benchmark", "checkpoints", "convert", "crashtest", "export", "main", "plan", "predict", "prepare", "report",
        "sweep", "visualize",
    ]  # fmt: skip
    commands = "\n".join(["import convmixer_jax", *(f"import convmixer_jax.{name}" for name in names)])
    assert loaded_packages(f"{commands}\nconvmixer_jax.load\nloaded()", tmp_path) == [[]]


TRAIN = """
import os
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # LLVM's take longer than all else here
import convmixer_jax.training.runner
loaded()
from convmixer_jax.main import main
code = main(["main", "--config", RECIPE, "--config.model.dim=4",
             "--config.model.depth=1", "--config.epochs=1", "--config.train_examples=64",
             "--config.augment.order=()", "--config.compilation_cache=False"])
assert code == 0, code
loaded()
"""


@pytest.mark.slow
def test_a_training_run_never_imports_tensorflow(tmp_path):
    source = f"RECIPE = {str(ROOT / 'configs/digits.py')!r}{TRAIN}"
    after_import, after_run = loaded_packages(source, tmp_path)
    # TensorFlow is seconds and every GPU's memory; PyTorch is for tests; scikit-learn for the digits alone.
    assert after_import == ["flax", "jax", "orbax", "tensorboard"]
    assert after_run == ["flax", "jax", "orbax", "sklearn", "tensorboard"]
    assert json.loads((tmp_path / "runs/digits/result.json").read_text())["step"] == 1
