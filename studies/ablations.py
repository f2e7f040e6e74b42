"""Kernels and patches of the paper's CIFAR-10 model: a ConvMixer-256/8 in 200 epochs, changed in one of them at a time.

Command:   python -m convmixer_jax.sweep --study studies/ablations.py
Source:    the paper's ablations, as report A of the README quotes them: kernels 3, 5, 7, 9 at patch 1 93.61, 95.19,
           95.80, 95.88 %; patches 2 and 4 at kernel 9 95.00, 92.61. (For kernel 9 at patch 1 the paper's table has
           96.03.)
Cost:      6 points with 3 seeds of 200 epochs: made for an accelerator. Small: 6 runs like those of kernel_size.py.
Ours:      the recipe is configs/cifar10.py, with what it says under "Ours"; small as in kernel_size.py.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="ablations",
        title="Kernel and patch size of a ConvMixer-256/8, 200 epochs",
        source="the paper's ablations (200 epochs), as report A quotes them",
        recipe="configs/cifar10.py",
        points={
            "kernel_size=3": {"model.kernel_size": 3},
            "kernel_size=5": {"model.kernel_size": 5},
            "kernel_size=7": {"model.kernel_size": 7},
            "kernel_size=9": {"model.kernel_size": 9},
            "patch_size=2": {"model.patch_size": 2},
            "patch_size=4": {"model.patch_size": 4},
        },
        seeds=(0, 1, 2),
        published={
            "kernel_size=3": 0.9361,
            "kernel_size=5": 0.9519,
            "kernel_size=7": 0.9580,
            "kernel_size=9": 0.9588,
            "patch_size=2": 0.9500,
            "patch_size=4": 0.9261,
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
                    "report_every_steps": 78,
                },
                seeds=(0,),
            ),
        },
    )
