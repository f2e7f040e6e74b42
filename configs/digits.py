"""The 1,797 handwritten digits that scikit-learn bundles: 8x8 pixels, one channel, no download, no flips."""

from ml_collections import ConfigDict

from convmixer_jax.config import get_base


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = get_base()
    config.dataset = "digits"
    config.batch_size = 64
    config.epochs = 20
    config.model.dim = 64
    config.model.depth = 4
    config.model.patch_size = 1
    config.model.kernel_size = 3
    config.augment.order = ("pad_and_crop",)
    config.augment.pad_and_crop.pixels = 1
    config.schedule.learning_rate = 0.02
    config.report_every_steps = 22
    config.eval_every_epochs = 5
    config.checkpoint_every_steps = 110
    return config
