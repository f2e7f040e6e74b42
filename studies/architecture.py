"""The best ConvMixer of at most 600,000 parameters: channels, blocks, patch and kernel, found by TPE on CIFAR-10.

Command:   python -m convmixer_jax.sweep --study studies/architecture.py
Source:    ours. To compare with: ConvMixer-256/8 (patch 2, kernel 5), 594,186 parameters, by which the recipe of the
           authors' small script reaches 92.60 % when it trains on all images.
Cost:      40 points with one seed of 25 epochs, of which the worse two thirds are stopped after 2, 6 or 18. Points
           beyond the budget are told to TPE and never run. Small: 8 runs of up to a minute on 2 cores of an EPYC.
Ours:      all. It chooses by a tenth of the training images. Small has at most 150,000 parameters, 2,000 images.
"""

from convmixer_jax.studying.study import Range, Scale, Study


def get_study() -> Study:
    return Study(
        name="architecture",
        title="Channels, blocks, patch and kernel of a ConvMixer under a budget of parameters",
        source="ours, no document",
        recipe="configs/cifar10_fast.py",
        axes={
            "model.dim": Range(64, 384, step=32),
            "model.depth": Range(2, 16),
            "model.patch_size": (1, 2, 4),
            "model.kernel_size": (3, 5, 7, 9),
        },
        settings={"val_fraction": 0.1},
        sampler="tpe",
        pruner="asha",
        trials=40,
        most_params=600_000,
        seeds=(0,),
        scales={
            "small": Scale(
                {"train_examples": 2000, "batch_size": 100, "epochs": 3, "schedule.learning_rate": 0.02},
                trials=8,
                most_params=150_000,
            ),
            "digits": Scale(
                {
                    "dataset": "digits",
                    "mean": (),
                    "std": (),
                    "batch_size": 64,
                    "epochs": 3,
                    "augment.order": ("pad_and_crop",),
                    "augment.pad_and_crop.pixels": 1,
                },
                trials=8,
                most_params=150_000,
            ),
        },
    )
