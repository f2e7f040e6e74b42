"""Kernels of 3, 5, 7 and 9 at patch 1: a ConvMixer-256/8 on CIFAR-10 in 30 epochs.

Command:   python -m convmixer_jax.sweep --study studies/kernel_size.py
Source:    report A of the README, its table of kernels: 85.65, 86.98, 88.40, 88.94 %. It quotes for 200 epochs of the
           paper's own recipe (configs/cifar10.py) 93.61, 95.19, 95.80, 95.88.
Cost:      4 points with 3 seeds; published: about 10 hours a run on one cloud GPU. Small: 4 runs of a minute or two on
           2 cores of an EPYC.
Ours:      small has 32 channels, 4 blocks, 5,000 images and a higher rate, since it makes 780 updates; digits has
           images of 8x8 pixels.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="kernel_size",
        title="Kernel size of a ConvMixer, patch 1",
        source="report A, table of kernels (ConvMixer-256/8, patch 1, 30 epochs)",
        recipe="configs/report_a.py",
        axes={"model.kernel_size": (3, 5, 7, 9)},
        seeds=(0, 1, 2),
        published={
            "kernel_size=3": 0.8565,
            "kernel_size=5": 0.8698,
            "kernel_size=7": 0.8840,
            "kernel_size=9": 0.8894,
        },
        scales={
            "small": Scale(
                {
                    "model.dim": 32,
                    "model.depth": 4,
                    "train_examples": 5000,
                    "batch_size": 64,
                    "epochs": 10,
                    "eval_every_epochs": 5,
                    "schedule.learning_rate": 0.01,
                    "report_every_steps": 78,
                },
                seeds=(0,),
            ),
            "digits": Scale(
                {
                    "dataset": "digits",
                    "model.dim": 32,
                    "model.depth": 3,
                    "batch_size": 64,
                    "epochs": 5,
                    "augment.order": ("pad_and_crop",),
                    "augment.pad_and_crop.pixels": 1,
                    "schedule.learning_rate": 0.02,
                    "report_every_steps": 22,
                },
                seeds=(0,),
            ),
        },
    )
