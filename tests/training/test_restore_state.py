"""Checkpoints of another config are refused; damaged ones are set aside by all processes alike."""

import types
from pathlib import Path

import pytest

from convmixer_jax.config import get_base
from convmixer_jax.config_record import digest
from convmixer_jax.errors import UserError
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.steps import DamagedError
from convmixer_jax.training import resume


@pytest.mark.parametrize("meta", [{}, {"config_digest": "ab"}, {"config_digest": None}])
def test_a_step_of_another_config_or_of_none_is_refused(monkeypatch, meta):
    monkeypatch.setattr(resume, "to_tree", lambda state: {})
    monkeypatch.setattr(resume, "from_tree", lambda state, tree: "state")
    experiment = types.SimpleNamespace(abstract_state=None, config=get_base())
    checkpoints = types.SimpleNamespace(directory="runs/x/checkpoints", restore=lambda step, tree: ({}, meta))
    with pytest.raises(UserError, match="checkpoint 3 in runs/x/checkpoints was made with another config"):
        resume.restore_state(experiment, checkpoints, 3)
    meta["config_digest"] = digest(experiment.config)
    assert resume.restore_state(experiment, checkpoints, 3) == ("state", meta)


def test_another_process_may_set_a_damaged_step_aside_first(monkeypatch, tmp_path):
    """What a process sees that is not the first one: the step has left its folder when it hears that it is damaged."""
    for step in ("1", "2"):
        (tmp_path / step).mkdir()
    checkpoints = Checkpoints(tmp_path, read_only=True)
    checkpoints.saved, checkpoints._lead = 2, False
    monkeypatch.setattr(checkpoints, "steps", lambda: sorted(int(path.name) for path in tmp_path.iterdir()))
    monkeypatch.setattr(checkpoints, "unverified", lambda step: step == 1)
    asked = []

    def restore(experiment: object, _: object, step: int) -> tuple[str, dict]:
        asked.append(step)
        if step == 2:
            Path(tmp_path / "2").rmdir()
            raise DamagedError(tmp_path / "2", "a bit", "begin again")
        return "state", {"step": step}

    monkeypatch.setattr(resume, "restore_state", restore)
    said: list[str] = []
    assert resume.first_state(None, checkpoints, None, said.append) == ("state", {"step": 1})
    assert asked == [2, 1]
    assert said == ["checkpoint 1 is not verified: written before manifests"]
