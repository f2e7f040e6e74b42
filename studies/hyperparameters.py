"""Learning rate, weight decay and batch size: a grid, then what TPE makes of it; a ConvMixer-256/8 on CIFAR-10.

Command:   python -m convmixer_jax.sweep --study studies/hyperparameters.py
Source:    report B of the README: its baseline (lr 0.05, decay 0.005, batch 512) 92.24 %, the best of its grid (0.01,
           1e-4, 256) 92.74. Which other points its grid had is unknown.
Cost:      24 points with one seed of 25 epochs, of which the worse two thirds are stopped after 2, 6 or 18. Small: 12
           runs of up to a minute on 2 cores of an EPYC.
Ours:      the grid of those values, 8 points, and the ranges. It chooses by a tenth of the training images, so the
           scores on the test split are of models that saw nine tenths of them. Small has patches of 4 pixels, 64
           channels, 4 blocks and 5,000 images.
"""

import itertools

from convmixer_jax.studying.study import Range, Scale, Study

FIELDS = ("schedule.learning_rate", "optimizer.weight_decay", "batch_size")


def get_study() -> Study:
    grid = itertools.product((0.05, 0.01), (0.005, 1e-4), (512, 256))
    return Study(
        name="hyperparameters",
        title="Learning rate, weight decay and batch size of a ConvMixer",
        source="report B, its baseline and the best of its grid (ConvMixer-256/8, patch 2, kernel 5, 25 epochs)",
        recipe="configs/report_b.py",
        axes={
            "schedule.learning_rate": Range(1e-3, 0.1, log=True),
            "optimizer.weight_decay": Range(1e-5, 0.1, log=True),
            "batch_size": (128, 256, 512),
        },
        points={str(number): dict(zip(FIELDS, values, strict=True)) for number, values in enumerate(grid)},
        settings={"val_fraction": 0.1},
        sampler="tpe",
        pruner="asha",
        trials=24,
        seeds=(0,),
        published={
            "learning_rate=0.05,weight_decay=0.005,batch_size=512": 0.9224,
            "learning_rate=0.01,weight_decay=0.0001,batch_size=256": 0.9274,
        },
        scales={
            "small": Scale(
                {
                    "model.dim": 64,
                    "model.depth": 4,
                    "model.patch_size": 4,
                    "train_examples": 5000,
                    "epochs": 9,
                },
                trials=12,
            ),
            "digits": Scale(
                {
                    "dataset": "digits",
                    "mean": (),
                    "std": (),
                    "model.dim": 16,
                    "model.depth": 2,
                    "model.kernel_size": 3,
                    "epochs": 18,
                    "augment.order": ("pad_and_crop",),
                    "augment.pad_and_crop.pixels": 1,
                },
                trials=12,
            ),
        },
    )
