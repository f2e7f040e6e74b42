"""What tests of whole models share."""

import pytest

from convmixer_jax.ops.choice import OPS
from tests.ops import plain


@pytest.fixture(scope="module")
def native_with_few_examples():
    """The C++ computes batches of any size, which it would leave to the formulas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPS, "native", plain.NATIVE.layout)
        yield
