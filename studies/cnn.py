"""A small CNN against a ConvMixer-256/8 (patch 1, kernel 9), both trained alike on CIFAR-10 in 30 epochs.

Command:   python -m convmixer_jax.sweep --study studies/cnn.py
Source:    report A of the README: CNN 79 %, ConvMixer 88.98.
Cost:      2 points with 3 seeds; published: about 10 hours for the ConvMixer on one cloud GPU. Small: 2 runs of a
           minute or two on 2 cores of an EPYC.
Ours:      small has a ConvMixer of 32 channels and 4 blocks, 5,000 images and a rate of 0.003.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="cnn",
        title="A CNN of three convolutions and a ConvMixer",
        source="report A (its CNN baseline and its ConvMixer-256/8, patch 1, kernel 9, 30 epochs)",
        recipe="configs/report_a.py",
        # A CNN refuses sizes that it does not read: they are the base's.
        points={
            "cnn": {
                "model.variant": "cnn",
                "model.dim": 256,
                "model.depth": 8,
                "model.patch_size": 2,
                "model.kernel_size": 5,
            },
            "convmixer": {},
        },
        seeds=(0, 1, 2),
        published={"cnn": 0.79, "convmixer": 0.8898},
        scales={
            "small": Scale(
                {
                    "model.dim": 32,
                    "model.depth": 4,
                    "train_examples": 5000,
                    "epochs": 6,
                    "eval_every_epochs": 2,
                    "schedule.learning_rate": 0.003,
                    "report_every_steps": 39,
                },
                seeds=(0,),
            ),
        },
    )
