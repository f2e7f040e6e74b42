"""Which examples share statistics, for batches, groups and devices. What comes of it: test_features_on_devices.py."""

import pytest

from convmixer_jax.ops.sharing import Sharing, share
from convmixer_jax.training.mesh import make_mesh

AXES = ("data", "fsdp")
# Examples, examples of a group, devices.
SHARED = {
    (24, 0, 1): Sharing(),
    (24, 24, 1): Sharing(),
    (24, 6, 1): Sharing(groups=4),
    (24, 0, 8): Sharing(AXES, 8, together=8),
    (24, 24, 8): Sharing(AXES, 8, together=8),
    (24, 12, 8): Sharing(AXES, 8, together=4),
    (24, 3, 8): Sharing(AXES, 8),
    (24, 1, 8): Sharing(AXES, 8, groups=3),
}


@pytest.mark.parametrize("examples, group, devices", SHARED)
def test_who_shares(examples, group, devices):
    found = share(examples, group, make_mesh(devices))
    assert found == SHARED[examples, group, devices]
    if devices == 1:
        assert found == share(examples, group, None)


def test_groups_of_devices_are_in_the_order_of_the_mesh():
    assert share(24, 12, make_mesh(8)).device_groups() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert share(24, 0, make_mesh(8)).device_groups() is None


@pytest.mark.parametrize("group, devices", [(5, 1), (48, 1), (2, 8), (4, 8)])
def test_groups_that_are_not_whole_are_refused(group, devices):
    with pytest.raises(ValueError, match=f"groups of {group}: they do not divide 24 examples on {devices} devices"):
        share(24, group, make_mesh(devices))
