"""The cost of a recorded model, also where the record is not of this version, or damaged."""

import json
import re

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.reporting.costs import recorded_cost
from convmixer_jax.reporting.workdirs import read_run
from tests.reporting.made_up import write_run


@pytest.mark.parametrize("field, value", [("of_a_later_version", 3), ("dim", -8), ("dim", "wide"), ("variant", [])])
def test_a_model_that_cannot_be_built_is_a_mistake_that_names_the_file(tmp_path, field, value):
    write_run(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["model"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'config.json'))} holds no model that can be built"):
        recorded_cost(read_run(tmp_path, "run"))
