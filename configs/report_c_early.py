"""ConvMixer-128/4 (patch 1, kernel 8) on CIFAR-10 in 50 epochs: report C, its earlier phase.

Command:   python -m convmixer_jax.main --config configs/report_c_early.py
Source:    report C of the README: lr 1e-3 with a slanted triangle; zoom and shifts of 10, then 20 %, rotation, flips;
           dropout 0.2 before the classifier; an L2 penalty of 1e-3.
Expected:  no score of this phase is known to us; not measured here yet.
Cost:      103,434 parameters, 1562 updates of 32 an epoch.
Ours:      model, batch, BatchNorm, initial weights, eps and no decay as in configs/report_c.py; the slanted
           triangle's cut 0.1 and ratio 32 are ULMFiT's; zoom and shifts of 20 % throughout (its beginning is
           --config.augment.affine.zoom=0.1 --config.augment.affine.shift=0.1); rotation by 15 degrees; no shift of
           the channels (the row channel_shift would do it).
"""

from ml_collections import ConfigDict

from convmixer_jax.config import get_base


def get_config() -> ConfigDict:
    config = get_base()
    config.dataset = "cifar10"
    config.batch_size = 32
    config.epochs = 50
    config.l2 = 1e-3
    config.model.dim = 128
    config.model.depth = 4
    config.model.patch_size = 1
    config.model.kernel_size = 8
    config.model.initializer = "glorot_uniform"
    config.model.norm_momentum = 0.01
    config.model.norm_epsilon = 1e-3
    config.model.head_dropout = 0.2
    config.augment.order = ("horizontal_flip", "affine")
    config.augment.affine.rotation = 15.0
    config.augment.affine.shift = 0.2
    config.augment.affine.zoom = 0.2
    config.optimizer.eps = 1e-7
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 0.0
    config.schedule.name = "slanted_triangle"
    config.schedule.learning_rate = 1e-3
    config.report_every_steps = 200
    config.checkpoint_every_steps = 1562
    return config
