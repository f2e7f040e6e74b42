"""Widths of 128 and 256 channels with 4, 8 and 12 blocks (patch 1, kernel 8) on CIFAR-10 in 200 epochs.

Command:   python -m convmixer_jax.sweep --study studies/width_depth.py
Source:    report C of the README, which has no table of them: "slightly behind" the paper's 91.26 % of 128/4. That is
           the published column; arXiv 2201.09792 has it.
Cost:      6 points with 3 seeds of 200 epochs: made for an accelerator. Small: 6 runs of a minute or two on 2 cores of
           an EPYC.
Ours:      small has patches of 4 pixels, which cost a sixteenth, 5,000 images and batches of 64.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="width_depth",
        title="Width and depth of a ConvMixer, kernel 8",
        source="the paper's table of CIFAR-10 (128/4, patch 1, kernel 8, 200 epochs), as report C quotes it",
        recipe="configs/report_c.py",
        axes={"model.dim": (128, 256), "model.depth": (4, 8, 12)},
        seeds=(0, 1, 2),
        published={"dim=128,depth=4": 0.9126},
        scales={
            "small": Scale(
                {
                    "model.patch_size": 4,
                    "train_examples": 5000,
                    "batch_size": 64,
                    "epochs": 4,
                    "eval_every_epochs": 2,
                    "schedule.offset_epochs": 0.0,
                    "report_every_steps": 78,
                },
                seeds=(0,),
            ),
            "digits": Scale(
                {
                    "dataset": "digits",
                    "model.patch_size": 2,
                    "model.kernel_size": 3,
                    "batch_size": 64,
                    "epochs": 3,
                    "augment.order": ("pad_and_crop",),
                    "augment.pad_and_crop.pixels": 1,
                    "schedule.offset_epochs": 0.0,
                    "report_every_steps": 22,
                },
                seeds=(0,),
            ),
        },
    )
