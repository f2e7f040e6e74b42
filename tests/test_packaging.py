"""An installed package has every file that it reads."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_is_no_module_is_listed_to_be_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        ROOT.joinpath(*package.split("."), name)
        for package, names in settings["package-data"].items()
        for name in names
    }
    files = {path for path in (ROOT / "convmixer_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert listed == {path for path in files if path.suffix != ".py"}


def test_every_folder_is_a_package():
    folders = {path.parent for path in (ROOT / "convmixer_jax").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
