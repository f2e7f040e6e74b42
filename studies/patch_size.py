"""Patches of 1, 2 and 4 pixels with kernel 9: a ConvMixer-256/8 on CIFAR-10 in 30 epochs.

Command:   python -m convmixer_jax.sweep --study studies/patch_size.py
Source:    report A of the README, its table of patches: 89.97, 86.03, 80.96 %. It quotes for 200 epochs of the paper's
           own recipe (configs/cifar10.py) 95.88, 95.00, 92.61.
Cost:      3 points with 3 seeds; published: about 10 hours a run on one cloud GPU. Small: 3 runs of a minute or two on
           2 cores of an EPYC.
Ours:      small has 32 channels, 4 blocks, 5,000 images and a higher rate, since it makes 780 updates; digits has
           kernels of 3, as patches of 4 make a map of 2x2 of its images.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="patch_size",
        title="Patch size of a ConvMixer, kernel 9",
        source="report A, table of patches (ConvMixer-256/8, kernel 9, 30 epochs)",
        recipe="configs/report_a.py",
        axes={"model.patch_size": (1, 2, 4)},
        seeds=(0, 1, 2),
        published={"patch_size=1": 0.8997, "patch_size=2": 0.8603, "patch_size=4": 0.8096},
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
                    "model.kernel_size": 3,
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
