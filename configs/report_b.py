"""ConvMixer-256/8 (patch 2, kernel 5) on CIFAR-10 in 25 epochs: report B, variants of the authors' small script.

Command:   python -m convmixer_jax.main --config configs/report_b.py
Source:    report B of the README: the small script with clip 1.0. Published 92.24 %. Its variants are the recipes
           configs/report_b_*.py, which change this one.
Expected:  92.24 is published; not measured here yet.
Cost:      594,186 parameters, 97 updates of 512 an epoch. Published: 24-46 s per epoch on a GPU.
Ours:      RandAugment n 2, m 12 and flips, the stronger of its two augmentations (the other is
           --config.augment.order='("pad_and_crop", "horizontal_flip")'); the last, short batch is dropped; mean, std,
           eps and decay on every parameter are the small script's, whose crops of scale 1.0 are left out.
"""

from ml_collections import ConfigDict

from convmixer_jax.config import get_base


def get_config() -> ConfigDict:
    config = get_base()
    config.dataset = "cifar10"
    config.mean = (0.4914, 0.4822, 0.4465)
    config.std = (0.2471, 0.2435, 0.2616)
    config.batch_size = 512
    config.epochs = 25
    config.model.dim = 256
    config.model.depth = 8
    config.model.patch_size = 2
    config.model.kernel_size = 5
    config.augment.order = ("horizontal_flip", "rand_augment")
    config.augment.rand_augment.tables = "torchvision"
    config.augment.rand_augment.num_ops = 2
    config.augment.rand_augment.magnitude = 12.0
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.005
    config.optimizer.decay_mask = "all"
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "triangle"
    config.schedule.learning_rate = 0.05
    config.report_every_steps = 20
    config.checkpoint_every_steps = 97
    return config
