"""Augmentation: each operation alone, each library's RandAugment, mixing, and whole policies of reports, on CIFAR-10.

Command:   python -m convmixer_jax.sweep --study studies/augmentation.py
Source:    the authors' small script, 92.60 % with flips and torchvision's RandAugment. The policies are those of
           reports C (its last and its early phase) and E of the README, which trained other models: no numbers.
Cost:      17 points with 3 seeds of 25 epochs. Small: 17 runs of half a minute to one on 2 cores of an EPYC.
Ours:      each operation comes after flips, but for the row "none"; strengths are those of the recipes that have it,
           else chosen here: affine of 15 degrees and 10 %, shifts of the channels by 20 levels. In 25 epochs a stronger
           policy may well be worse. Small has patches of 4 pixels, 64 channels, 4 blocks and 5,000 images.
"""

from collections.abc import Mapping
from typing import Any

from convmixer_jax.studying.study import Scale, Study

FLIP = "horizontal_flip"
JITTER = "augment.colour_jitter"


def after_flips(*names: str, **settings: Any) -> dict[str, Any]:
    """Returns the fields of flips and then these operations. settings: fields below config.augment, __ for a dot."""
    return {"augment.order": (FLIP, *names)} | {
        f"augment.{name.replace('__', '.')}": value for name, value in settings.items()
    }


def points() -> Mapping[str, Mapping[str, Any]]:
    """Returns all points by name."""
    return {
        "none": {"augment.order": ()},
        "flips": after_flips(),
        "pad_and_crop": after_flips("pad_and_crop"),
        "random_resized_crop": after_flips("random_resized_crop"),
        "colour_jitter": after_flips(
            "colour_jitter",
            colour_jitter__brightness=0.2,
            colour_jitter__contrast=0.2,
            colour_jitter__saturation=0.2,
        ),
        "affine": after_flips("affine", affine__rotation=15.0, affine__shift=0.1, affine__zoom=0.1),
        "channel_shift": after_flips("channel_shift", channel_shift__levels=20.0),
        "cutout": after_flips("cutout", cutout__half_side=8),
        "random_erasing": after_flips("random_erasing"),
        "randaugment_torchvision": after_flips("rand_augment"),
        "randaugment_timm": after_flips("rand_augment", rand_augment__tables="timm"),
        "randaugment_imgaug": after_flips("rand_augment", rand_augment__tables="imgaug"),
        "mixup": after_flips() | {"mixing.mixup_alpha": 0.5},
        "cutmix": after_flips() | {"mixing.cutmix_alpha": 0.5},
        "policy_c": after_flips(
            "rand_augment",
            rand_augment__tables="imgaug",
            rand_augment__num_ops=3,
            rand_augment__magnitude=7.0,
        ),
        "policy_c_early": after_flips("affine", affine__rotation=15.0, affine__shift=0.2, affine__zoom=0.2),
        "policy_e": {
            "augment.order": ("pad_and_crop", FLIP, "colour_jitter", "cutout"),
            f"{JITTER}.brightness": 0.16,
            f"{JITTER}.contrast": 0.16,
            f"{JITTER}.saturation": 0.16,
            f"{JITTER}.hue": 0.04,
            f"{JITTER}.probability": 0.8,
            # Half of report E's sides: its images have twice the pixels.
            "augment.cutout.half_side": 8,
            "mixing.mixup_alpha": 0.2,
            "mixing.cutmix_alpha": 0.2,
            "mixing.per": "example",
        },
    }


def get_study() -> Study:
    return Study(
        name="augmentation",
        title="Augmentation of a ConvMixer",
        source="github.com/locuslab/convmixer-cifar10 (ConvMixer-256/8, patch 2, kernel 5, 25 epochs)",
        recipe="configs/cifar10_fast.py",
        points=points(),
        seeds=(0, 1, 2),
        published={"randaugment_torchvision": 0.9260},
        scales={
            "small": Scale(
                {
                    "model.dim": 64,
                    "model.depth": 4,
                    "model.patch_size": 4,
                    "train_examples": 5000,
                    "batch_size": 128,
                    "epochs": 6,
                    "eval_every_epochs": 2,
                    "schedule.learning_rate": 0.02,
                },
                seeds=(0,),
            ),
        },
    )
