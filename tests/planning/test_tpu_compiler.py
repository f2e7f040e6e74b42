"""The TPU's own compiler, for chips that are not there: what test_compiled.py asserts of eight CPU devices.

`make test-tpu` runs it: the compiler comes with jax[tpu] and takes 700 MB of disk.
"""

import pytest

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.planning.absent import absent_devices
from convmixer_jax.planning.compiled import Work, absent_place, compile_update, held_bytes
from tests.training.digits import digits_config

pytestmark = pytest.mark.tpu

TOPOLOGY, CHIPS = "v5e:2x4", 8
# dim 128, depth 1, patch 1, kernel 3, one channel, ten classes: stem 128, depthwise 9 * 128, pointwise 128 * 128, head
# 128 * 10 + 10, and five vectors of 128 as the biases of three convolutions, six of three norms.
PARAMETERS = 128 + 9 * 128 + 128 * 128 + 1280 + 10 + 9 * 128
NORMS, CHANNELS = 3, 128


def compiled(fsdp_devices: int):
    config = digits_config(0, 3, order=(), ops="auto", batch_size=8 * CHIPS, fsdp_devices=fsdp_devices)
    config.model.dim = CHANNELS
    return compile_update(absent_place(TOPOLOGY, config, DATASETS["digits"]), config)


def sums(work: Work) -> list:
    return [each for each, times in work.sent for _ in range(times)]


def test_data_parallelism_costs_sums_of_gradients_and_of_norms_and_splitting_saves_memory():
    whole = compiled(1)
    assert whole.fits
    assert whole.experiment.num_params == PARAMETERS
    sent = sums(whole.work)
    assert {(each.kind, each.group) for each in sent} == {("all-reduce", CHIPS)}
    # As on the CPU, but that two counts of the metrics go together, after the last update of a dispatch's loop.
    assert len(sent) == 3 * NORMS + 2
    assert sum(each.payload for each in sent) == 4 * (PARAMETERS + 4 * NORMS * CHANNELS + 3)
    split = compiled(CHIPS)
    # The head's bias alone has no axis that eight devices divide; of the rest, and of both moments, an eighth is kept.
    saved = 3 * 4 * (PARAMETERS - 10) * 7 // 8
    assert held_bytes(whole.experiment) - held_bytes(split.experiment) == saved
    # On the chip, arrays of few values take whole tiles: the saving is at least 0.8 of it.
    assert 0.8 * saved < whole.need.held - split.need.held <= 1.2 * saved


@pytest.mark.parametrize("topology", ["v5e:3x3", "v5e", "v5e:17x5"])
def test_what_is_no_slice_is_told(topology):
    with pytest.raises(UserError, match=f"--topology is '{topology}'"):
        absent_devices(topology)
