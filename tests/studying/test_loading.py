"""Mistakes in a study, and on the command line that names it, are told in one line before anything starts."""

import pytest

from convmixer_jax import sweep
from tests.studying.conftest import GRID, search

MISTAKES = {
    "unknown field": ("axes={'model.kernel_sise': (3,)}", "axes: there is no field 'model.kernel_sise' (did you mean "),
    "in settings": (f"{GRID}, settings={{'modle.dim': 3}}", "settings: there is no field 'modle.dim' (did you mean "),
    "in a scale": (f"{GRID}, scales={{'s': Scale({{'epoch': 3}})}}", "scales: s: there is no field 'epoch' (did you"),
    "in a point": ("points={'a': {'batch': 3}}", "points: a: there is no field 'batch'"),
    "kind": ("axes={'model.dim': (8, '16')}", "axes: model.dim is '16': it must be of the kind int"),
    "a bool": ("axes={'model.dim': (8, True)}", "axes: model.dim is True: it must be"),
    "range": (f"{GRID}, settings={{'epochs': 0}}", "settings: epochs is 0: it must be a number from 1"),
    "seed": (f"{GRID}, settings={{'seed': 1}}", "settings: seed is no field that a study sets"),
    "seeds": (f"{GRID}, seeds=()", "seeds is (): one or more different whole numbers"),
    "seeds twice": (f"{GRID}, seeds=(1, 1)", "seeds is (1, 1): one or more different"),
    "varied": (f"{GRID}, settings={{'model.kernel_size': 3}}", "which the study varies: leave one of the two out"),
    "axis": ("axes={'model.dim': 8}", "axes: model.dim is 8: write a tuple of values, or a Range"),
    "no axes": ("axes={}", "it has neither axes nor points"),
    "range in a grid": ("axes={'model.dim': Range(1, 8)}", "axes: model.dim is a Range: a grid needs a tuple"),
    "range upside down": (search(axes="{'model.dim': Range(9, 8)}"), "axes: model.dim is Range(low=9, high=8"),
    "range of words": (search(axes="{'model.dim': Range('a', 'b')}"), "low, high and step must be numbers"),
    "log from 0": (search(axes="{'optimizer.weight_decay': Range(0.0, 1.0, log=True)}"), "with log low must be"),
    "log in steps": (search(axes="{'model.dim': Range(8, 64, log=True, step=8)}"), "and there is no step"),
    "steps back": (search(axes="{'model.dim': Range(8, 64, step=-8)}"), "step must be above 0"),
    "half a step": (search(axes="{'model.dim': Range(8, 64, step=0.5)}"), "of whole numbers a whole one"),
    "sampler": (f"{GRID}, sampler='tpee'", "sampler is 'tpee' (did you mean tpe?)"),
    "pruner": (f"{GRID}, pruner='median'", "pruner is 'median': choose one of none, asha, hyperband"),
    "no trials": (f"{GRID}, sampler='random'", "trials is 0: say how many points random tries"),
    "point beside the axes": (
        search(points="{'a': {'model.dim': 9, 'schedule.learning_rate': 0.01}}"),
        "points: a: model.dim is 9: a search needs one of its axis Range(low=8, high=64",
    ),
    "published": (f"{GRID}, published={{'kernel_size=4': 0.5}}", "published has 'kernel_size=4' (did you mean kernel_"),
    "percent": (f"{GRID}, published={{'kernel_size=3': 50.0}}", "published: kernel_size=3 is 50.0: a score is a"),
    "same names": ("axes={'schedule.learning_rate': (0.12345678, 0.12345679)}", "two points are called"),
    "name": (f"{GRID}, name='a/b'", "name is 'a/b': letters, digits, _, . and - make a folder's name"),
    "name above": (f"{GRID}, name='..'", "name is '..': letters, digits"),
    "kind of axes": ("axes=['model.dim']", "a part of the Study is not as it must be: 'list' object has no attribute"),
    "kind of seeds": (f"{GRID}, seeds=3", "a part of the Study is not as it must be: 'int' object"),
    "kind of recipe": (f"{GRID}, recipe=3", "recipe is 3: it must be of the kind str"),
    "kind of title": (f"{GRID}, title=None", "title is None: it must be of the kind str"),
    "kind of trials": (search(trials="2.5"), "trials is 2.5: it must be of the kind int"),
    "kind of budget": (f"{GRID}, most_params='9'", "most_params is '9': it must be of the kind int"),
    "kind in a scale": (f"{GRID}, scales={{'s': Scale({{}}, trials='3')}}", "scales: s: trials is '3': it must be"),
    "point's name": ("points={'../a': {}}", "'../a' is no name of a folder"),
    "recipe": (f"{GRID}, recipe='configs/x.py'", "recipe is 'configs/x.py': there is no such file in the study's"),
    "scale": (f"{GRID}, scales={{'s': {{'epochs': 3}}}}", "scales: 's' is a dict: write Scale("),
    "full": (f"{GRID}, scales={{'full': Scale({{}})}}", "scales has 'full', which is what the study itself is"),
    "argument": (f"{GRID}, seed=3", "TypeError: Study.__init__() got an unexpected keyword argument 'seed'"),
    "no validation": (search(settings="{}"), "config.val_fraction is 0: a study that chooses or prunes needs a"),
    "pruned without": (f"{GRID}, pruner='asha'", "config.val_fraction is 0: a study that chooses or prunes needs a"),
    "misfit": ("axes={'model.patch_size': (1, 4)}, settings={'model.kernel_size': 5}", "patch_size=4: config.model.k"),
    "preset": ("axes={'model.preset': ('convmixer_256_8_p1_k9',)}", "preset=convmixer_256_8_p1_k9: config.model.dim"),
    "unknown norm": ("axes={'model.norm': ('batch', 'nrom')}", "norm=nrom: config.model.norm is 'nrom': choose one of"),
    "unknown schedule": ("axes={'schedule.name': ('cosin',)}", "schedule=cosin: config.schedule.name is 'cosin'"),
    "unknown optimizer": ("axes={'optimizer.name': ('adm',)}", "config.optimizer.name is 'adm'"),
    "unknown augmentation": ("axes={'augment.order': (('flip',),)}", "order=flip: config.augment.order is 'flip'"),
    "batch beyond the data": ("axes={'batch_size': (64, 4096)}", "batch_size=4096: config.batch_size is 4096: the"),
    "budget": (f"{GRID}, most_params=1000", "kernel_size=3: 21,130 parameters are more than 1,000"),
}  # fmt: skip


def told(capsys, *arguments: str) -> str:
    assert sweep.main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_study_is_one_line(arguments, words, study_file, capsys, tmp_path):
    file = study_file(arguments)
    err = told(capsys, "--study", str(file))
    assert words in err
    assert str(file) in err
    assert not (tmp_path / "runs").exists()


ARGUMENTS = {
    "no study": (["--study=missing.py"], "--study missing.py: there is no such file; studies are Python files"),
    "scale": (["--scale=smal"], "--scale is 'smal': choose one of full"),
    "seeds": (["--seeds=1,x"], "'1,x' is no list of whole numbers such as 0,1,2"),
    "jobs": (["--jobs=0"], "'0' is no positive whole number"),
    "unknown field": (["--config.epoch=3"], "--config.epoch: there is no such field (did you mean epochs?)"),
    "not a number": (["--config.epochs=many"], "epochs"),
    "varied": (["--config.model.kernel_size=3"], "the study tiny varies this field; leave it to it"),
    "seed": (["--config.seed=3"], "a study has several seeds: name them by --seeds"),
    "unknown flag": (["--epochs=3"], "'--epochs=3' is not understood"),
    "workdir": (["--workdir=runs"], "'--workdir=runs' is not understood"),
    "storage": (["--storage=sqlight:///x.db"], "--storage sqlight:///x.db: Can't load plugin"),
    "missing folder": (["--storage=sqlite:////no/such/folder/x.db"], "unable to open database file"),
    "missing journal": (["--storage=journal:/no/such/folder/x.log"], "No such file or directory"),
    "no driver": (
        ["--storage=mysql://me:secret@localhost/x"],
        "--storage mysql://me:***@localhost/x: the package that speaks to this database is missing",
    ),
    "a password with signs": (
        ["--storage=mysql://me:secret/s@secret@localhost/x"],
        "mysql://me:***@localhost/x: the pa",
    ),
    "in memory": (["--storage=sqlite://"], "--storage sqlite://: it is in memory, so nothing of it would be kept (sq"),
    "no URL": (["--storage=study.db"], "--storage study.db: Could not parse SQLAlchemy URL"),
}


@pytest.mark.parametrize("arguments, words", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_mistake_on_the_command_line_is_one_line(arguments, words, study_file, capsys):
    study = [] if "--study" in arguments[0] else ["--study", str(study_file(GRID))]
    err = told(capsys, *study, *arguments)
    assert words in err
    assert "secret" not in err


BROKEN = {
    "no function": ("x = 1", "it has no get_study() that returns a Study"),
    "no study": ("def get_study():\n    return 3", "get_study() returned int, not a Study"),
    "raises": ("def get_study():\n    return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
    "its own key": ("def get_study():\n    return {}['a']", "line 2: KeyError: 'a'"),
    "exits": ("import sys\nsys.exit(0)", "line 2: SystemExit: 0"),
    "no Python": ("def get_study(:", "SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize("text, words", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_study_is_one_line(text, words, tmp_path, elsewhere, capsys):
    file = tmp_path / "broken.py"
    file.write_text(text)
    assert words in told(capsys, "--study", str(file))
