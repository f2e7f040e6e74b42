"""ConvMixer-256/8 (patch 2, kernel 5) on CIFAR-10 in 25 epochs: report B's LinearClassifier.

Command:   python -m convmixer_jax.main --config configs/report_b_linear.py
Source:    report B of the README: BatchNorm and dropout 0.2 before the classifier. Published 92.20 %, beside 92.24 of
           its baseline.
Expected:  92.20 is published; not measured here yet.
Cost:      594,698 parameters, 97 updates of 512 an epoch. Published: 24-46 s per epoch on a GPU.
Ours:      as in configs/report_b.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).with_name("report_b.py")))["get_config"]()
    config.model.head = "bn_dropout"
    return config
