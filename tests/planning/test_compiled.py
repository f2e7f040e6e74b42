"""What an update needs and sends, on virtual CPU devices, equals what follows from its parameters and norms."""

import pytest

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.planning.compiled import Outcome, Place, compile_update, held_bytes, local_place, refused_need
from tests.training.digits import digits_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

# See test_fsdp.py: of 306 parameters, four devices hold 84 each.
PARAMETERS, PART = 306, 84
NORMS, CHANNELS = 3, 8


def place(config) -> Place:
    return local_place(config, DATASETS["digits"])


@pytest.fixture(scope="module")
def compiled(quick_compilation):
    """Returns a function of devices and changes of the config to an outcome of 8 examples on each device."""
    known: dict[tuple, Outcome] = {}

    def make(devices: int, **changes) -> Outcome:
        key = (devices, *sorted(changes.items()))
        if key not in known:
            config = digits_config(devices, 3, order=(), batch_size=8 * devices, **changes)
            known[key] = compile_update(place(config), config)
        return known[key]

    return make


def test_data_parallelism_costs_sums_of_gradients_and_of_norms_and_nothing_else(compiled):
    sent = [each for each, times in compiled(8).work.sent for _ in range(times)]
    assert {(each.kind, each.group, each.loops) for each in sent} == {("all-reduce", 8, 1)}
    # Of every norm: the mean at one position, two sums of the forward and two of the backward pass, one after the
    # other; then all gradients in one, and the examples that were right.
    assert len(sent) == 3 * NORMS + 2
    # The gradient of a norm's bias is a sum of its backward pass: it is sent once. Then the loss and the count.
    values = PARAMETERS + (5 - 1) * NORMS * CHANNELS + 2
    assert sum(each.payload for each in sent) == 4 * values


def test_the_number_of_devices_changes_nothing_but_groups(compiled):
    four, eight = compiled(4), compiled(8)
    assert four.per_device == eight.per_device == 8
    assert four.work.flops == eight.work.flops
    assert (four.need, four.work.traffic) == (eight.need, eight.work.traffic)
    sent = [[(each.kind, each.payload, each.loops, times) for each, times in made.work.sent] for made in (four, eight)]
    assert sent[0] == sent[1]
    assert {each.group for each, _ in four.work.sent} == {4}


def test_splitting_parameters_saves_what_the_layout_says(compiled):
    whole, split = compiled(8), compiled(8, fsdp_devices=4)
    saved = 3 * 4 * (PARAMETERS - PART)  # the parameters and their two moments
    assert held_bytes(whole.experiment) - held_bytes(split.experiment) == saved
    assert whole.need.held - split.need.held == saved
    kinds = {each.kind for each, _ in split.work.sent}
    assert kinds == {"all-reduce", "all-gather"}


@pytest.mark.parametrize("told, gigabytes", [
    ("the total memory required for HLO temporaries (17.25G) exceeds available HBM (15.75G).", 17.25),
    ("Ran out of memory in memory space hbm. Used 512.00M of 256.00M hbm. Exceeded by 256M.", 0.5),
])  # fmt: skip
def test_a_refusal_tells_what_is_needed(compiled, told, gigabytes):
    experiment = compiled(8).experiment
    need = refused_need(RuntimeError(f"RESOURCE_EXHAUSTED: {told}"), experiment)
    assert need is not None
    assert (need.total, need.held) == (gigabytes * 2**30, held_bytes(experiment))
    assert refused_need(RuntimeError("out of memory"), experiment) is None


def test_what_cannot_be_assembled_is_refused():
    config = digits_config(8, 3, batch_size=12)
    with pytest.raises(UserError, match="config.batch_size is 12"):
        compile_update(place(config), config)
