"""Learning-rate schedules: constant, slanted triangle, one-cycle, triangle, cosine; a ConvMixer-128/4 on CIFAR-10.

Command:   python -m convmixer_jax.sweep --study studies/schedules.py
Source:    report C of the README: a fixed rate, the slanted triangle and one-cycle, of which it publishes one number,
           88.5 % with a fixed rate and no augmentation. Triangle and cosine are the paper's authors' and report E's.
Cost:      6 points with 3 seeds of 200 epochs: made for an accelerator. Small: 6 runs of a minute on 2 cores of EPYC.
Ours:      all have the peak of report C, 0.01. Small has patches of 4 pixels, 5,000 images and batches of 64.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="schedules",
        title="Learning-rate schedules of a ConvMixer-128/4",
        source="report C (ConvMixer-128/4, patch 1, kernel 8), which publishes a fixed rate without augmentation alone",
        recipe="configs/report_c.py",
        axes={"schedule.name": ("constant", "slanted_triangle", "one_cycle", "triangle", "cosine")},
        points={"constant, not augmented": {"schedule.name": "constant", "augment.order": ()}},
        seeds=(0, 1, 2),
        published={"constant, not augmented": 0.885},
        scales={
            "small": Scale(
                {
                    "model.patch_size": 4,
                    "train_examples": 5000,
                    "batch_size": 64,
                    "epochs": 4,
                    "eval_every_epochs": 2,
                    "schedule.offset_epochs": 0.0,
                    "report_every_steps": 10,
                },
                seeds=(0,),
            ),
        },
    )
