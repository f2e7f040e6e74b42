"""The optimiser: decay of what, decay times the rate or not, clipping, epsilon; the small script on CIFAR-10.

Command:   python -m convmixer_jax.sweep --study studies/optimizers.py
Source:    the authors' small script, 92.60 % without clipping, and report B of the README, 92.24 % with clipping by
           the norm 1.0 and otherwise the same.
Cost:      6 points with 3 seeds of 25 epochs. Small: 6 runs of a minute on 2 cores of an EPYC.
Ours:      the decay that the rate does not multiply is 1e-4, what 0.005 comes to at the schedule's mean rate. Small has
           patches of 4 pixels, 64 channels, 4 blocks, 5,000 images, batches of 128 and a rate of 0.02.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="optimizers",
        title="Optimiser and clipping of a ConvMixer",
        source="github.com/locuslab/convmixer-cifar10 (adamw) and report B (adamw_clipped), ConvMixer-256/8, 25 epochs",
        recipe="configs/cifar10_fast.py",
        points={
            "adamw": {},
            "adamw_clipped": {"optimizer.clip_norm": 1.0},
            "adamw_kernels_decay": {"optimizer.decay_mask": "kernels"},
            "adamw_no_decay": {"optimizer.weight_decay": 0.0},
            "adamw_eps_1e-3": {"optimizer.eps": 1e-3},
            "adamw_fixed_decay": {"optimizer.name": "adamw_fixed_decay", "optimizer.weight_decay": 1e-4},
        },
        seeds=(0, 1, 2),
        published={"adamw": 0.9260, "adamw_clipped": 0.9224},
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
