"""The implementations of the depthwise convolution by name; all follow `contract.Depthwise`.

depthwise = lookup(IMPLEMENTATIONS, "shifted", "config.model.ops")
"""

from convmixer_jax.ops.depthwise.contract import Depthwise
from convmixer_jax.ops.depthwise.convolution import NCHW, NHWC
from convmixer_jax.ops.depthwise.pallas import PALLAS
from convmixer_jax.ops.depthwise.shifted import SHIFTED

IMPLEMENTATIONS: dict[str, Depthwise] = {
    "lax": NHWC,
    "lax_nchw": NCHW,
    "shifted": SHIFTED,
    "pallas": PALLAS,
}
