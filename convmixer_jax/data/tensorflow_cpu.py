"""The one place that imports TensorFlow: late, quiet, and without an accelerator.

    tf = load_tensorflow()

It takes seconds to import, so it is a function, called where a pipeline is built and nowhere before.
"""

import functools
import os
from typing import Any

# Read once, by the C++ of TensorFlow, while it is imported. Without the second it prints, past its own log level, that
# oneDNN is on; nothing that reads images uses oneDNN.
_WHILE_IMPORTING = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


@functools.cache
def load_tensorflow() -> Any:
    """Returns the module tensorflow, which sees no GPU and no TPU: it would take their memory, or the TPU, from JAX."""
    before = {name: os.environ.get(name) for name in _WHILE_IMPORTING}
    os.environ.update(_WHILE_IMPORTING)
    try:
        import tensorflow as tf
    finally:
        for name, value in before.items():  # XLA and child processes read the same variables
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    tf.get_logger().setLevel("ERROR")
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
