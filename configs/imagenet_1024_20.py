"""ConvMixer-1024/20 (patch 14, kernel 9) on ImageNet in 150 epochs: the paper's model of large patches.

Command:   python -m convmixer_jax.main --config configs/imagenet_1024_20.py --data_dir DIR
Source:    as configs/imagenet_1536_20.py. Published 76.944 % (top-5 93.364).
Expected:  76.944 is published; not measured here yet.
Cost:      24,383,464 parameters, 2001 updates of 640 an epoch. Made for many accelerators.
Ours:      as in configs/imagenet_1536_20.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).with_name("imagenet_1536_20.py")))["get_config"]()
    config.model.preset = "convmixer_1024_20_ks9_p14"
    config.model.dim = 1024
    config.model.patch_size = 14
    return config
