"""The sweep, with real runs of main on the digits."""

import json
import sys

import pytest

from convmixer_jax import sweep
from convmixer_jax.config_record import read_record
from tests.commands import ROOT

pytestmark = pytest.mark.slow
STUDY = """
from convmixer_jax.studying.study import Study

def get_study():
    return Study(
        name="tiny", title="Kernels", source="nobody", recipe="configs/digits.py", seeds=(3,),
        axes={"model.kernel_size": (3, 4)}, points={"crops": {"augment.order": ()}},
        settings={"model.dim": 4, "model.depth": 1, "epochs": 2, "eval_every_epochs": 1, "val_fraction": 0.2,
                  "train_examples": 256, "optimizer.weight_decay": 1e-05},
    )
"""


@pytest.fixture
def study(tmp_path, elsewhere) -> str:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "tiny.py").write_text(STUDY)
    return "--study=tiny.py"


def test_a_study_of_the_digits(study, tmp_path, capsys):
    assert sweep.main([study, "--config.schedule.learning_rate=0.01", "--jobs=2"]) == 0
    out, err = capsys.readouterr()
    assert out == "tiny: 3 runs are done; all of it is in runs/studies/tiny\n"
    assert "3/3: " in err
    folder = tmp_path / "runs/studies/tiny"
    record = json.loads((folder / "study.json").read_text())
    assert record["settings"]["schedule.learning_rate"] == 0.01
    for point in record["points"]:
        run = folder / point["name"] / "seed-3"
        result, config = json.loads((run / "result.json").read_text()), read_record(run)["config"]
        assert (result["step"], result["split"], result["val_top1"] > 0) == (8, "test", True)
        assert (config["seed"], config["optimizer"]["weight_decay"]) == (3, 1e-5)
        assert config["model"]["kernel_size"] == point["parameters"]["model.kernel_size"]
        assert config["augment"]["order"] == point["parameters"]["augment.order"]
        # By hand it goes on with the command that the log begins with.
        command = (run / "trial.log").read_text().splitlines()[0]
        assert command.startswith(f"$ {sys.executable} -m convmixer_jax.main --config=")
    assert record["points"][2]["parameters"] == {"model.kernel_size": 3, "augment.order": []}
    # Once more: nothing is begun, and the list says that all is done.
    assert sweep.main([study, "--config.schedule.learning_rate=0.01"]) == 0
    capsys.readouterr()
    assert sweep.main([study, "--config.schedule.learning_rate=0.01", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0:00:00 left")


def test_a_mistake_that_only_a_run_finds_is_told_with_its_last_line(study, tmp_path, capsys):
    assert sweep.main([study, "--config.init_from=nowhere", "--jobs=3"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("3 failed: ")
    failed = [line for line in err.splitlines() if ": failed: ended with code 2: error: " in line]
    assert len(failed) == 3
    assert all("nowhere" in line for line in failed)
    record = json.loads((tmp_path / "runs/studies/tiny/crops/seed-3/trial.json").read_text())
    assert record["state"] == "failed"
    assert record["why"] in err
