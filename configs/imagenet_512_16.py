"""ConvMixer-512/16 (patch 7, kernel 8) on ImageNet in 150 epochs: a small model with an even kernel.

Command:   python -m convmixer_jax.main --config configs/imagenet_512_16.py --data_dir DIR
Source:    as configs/imagenet_1536_20.py; no score of this model is known to us.
Expected:  unknown; not measured here yet.
Cost:      5,357,544 parameters, 2001 updates of 640 an epoch. Made for many accelerators.
Ours:      the 150 epochs, and what is in configs/imagenet_1536_20.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).with_name("imagenet_1536_20.py")))["get_config"]()
    config.model.preset = "convmixer_512_16"
    config.model.dim = 512
    config.model.depth = 16
    config.model.kernel_size = 8
    return config
