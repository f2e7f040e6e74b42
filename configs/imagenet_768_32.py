"""ConvMixer-768/32 (patch 7, kernel 7) on ImageNet in 300 epochs: the paper's model with ReLU.

Command:   python -m convmixer_jax.main --config configs/imagenet_768_32.py --data_dir DIR
Source:    as configs/imagenet_1536_20.py, for 300 epochs. Published 80.158 % (top-5 95.070).
Expected:  80.158 is published; not measured here yet.
Cost:      21,110,248 parameters, 2001 updates of 640 an epoch. Made for many accelerators.
Ours:      as in configs/imagenet_1536_20.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).with_name("imagenet_1536_20.py")))["get_config"]()
    config.epochs = 300
    config.model.preset = "convmixer_768_32"
    config.model.dim = 768
    config.model.depth = 32
    config.model.kernel_size = 7
    config.model.activation = "relu"
    return config
