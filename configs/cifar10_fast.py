"""ConvMixer-256/8 (patch 2, kernel 5) on CIFAR-10 in 25 epochs: the authors' small script.

Command:   python -m convmixer_jax.main --config configs/cifar10_fast.py
Source:    github.com/locuslab/convmixer-cifar10. Published 92.60 % (42.6 s per epoch on one RTX 2080 Ti). Of it are
           torchvision's RandAugment (n 2, m 12, nearest, black), Adam's eps 1e-8, decay on every parameter, no
           clipping, no smoothing, mean and std.
Expected:  92.60 is published; 92.65 here with bfloat16, one seed, see the README's results.
Cost:      594,186 parameters, 97 updates of 512 an epoch; 1.8 hours on 2 cores of an EPYC
           (Zen 4) with bfloat16.
Ours:      the script's last batch of 336 images is dropped, as batches are of one size; its crops of scale 1.0
           change nothing and are left out. Its half precision is config.dtype = bfloat16, quicker on CPUs
           with AVX512-BF16; float32 is the default, which every CPU is quick at.
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
    config.optimizer.clip_norm = 0.0
    config.schedule.name = "triangle"
    config.schedule.learning_rate = 0.05
    config.report_every_steps = 20
    config.checkpoint_every_steps = 97
    return config
