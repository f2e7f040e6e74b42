"""ConvMixer-128/4 (patch 1, kernel 8) on CIFAR-10 in 200 epochs: report C, a reproduction in TensorFlow.

Command:   python -m convmixer_jax.main --config configs/report_c.py
Source:    report C of the README: AdamW without decay or clipping, batch 32, lr 0.01, Keras's BatchNorm and initial
           weights, imgaug's RandAugment n 3, m 7; widths 128, 256 and depths 4, 8, 12 (--config.model.dim, .depth).
           Published: 88.5 % without schedule and augmentation; "slightly behind" the paper (91.26) with them.
Expected:  below 91.26, without a figure, is published; not measured here yet.
Cost:      103,434 parameters, 1562 updates of 32 an epoch.
Ours:      the schedule is evaluated an epoch ahead, as there, so that the last epoch has rate 0. The flips are the
           ones that imgaug's RandAugment begins with; its crop of at most one pixel a side is left out. Unsaid there
           and chosen here: the data set's mean and std, Keras's eps 1e-7. The running variance is PyTorch's,
           unbiased: it differs by 3e-5 of itself. The tail of 16 images is dropped.
"""

from ml_collections import ConfigDict

from convmixer_jax.config import get_base


def get_config() -> ConfigDict:
    config = get_base()
    config.dataset = "cifar10"
    config.batch_size = 32
    config.epochs = 200
    config.model.dim = 128
    config.model.depth = 4
    config.model.patch_size = 1
    config.model.kernel_size = 8
    config.model.initializer = "glorot_uniform"
    config.model.norm_momentum = 0.01
    config.model.norm_epsilon = 1e-3
    config.augment.order = ("horizontal_flip", "rand_augment")
    config.augment.rand_augment.tables = "imgaug"
    config.augment.rand_augment.num_ops = 3
    config.augment.rand_augment.magnitude = 7.0
    config.optimizer.eps = 1e-7
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 0.0
    config.schedule.name = "triangle"
    config.schedule.learning_rate = 0.01
    config.schedule.offset_epochs = 1.0
    config.report_every_steps = 200
    config.checkpoint_every_steps = 1562
    return config
