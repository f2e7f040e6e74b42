"""A checkpoint that was made with another config is refused."""

import types

import pytest

from convmixer_jax.config import get_base
from convmixer_jax.config_record import digest
from convmixer_jax.errors import UserError
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
