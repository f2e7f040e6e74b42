"""Heads, blocks and twice the width: variants of a ConvMixer-256/8 (patch 2, kernel 5) on CIFAR-10 in 25 epochs.

Command:   python -m convmixer_jax.sweep --study studies/heads_blocks.py
Source:    report B of the README: plain 92.24 %, RepresentationHead 92.32, LinearClassifier (bn_dropout) 92.20,
           bottleneck 91.83, 512 channels 93.05.
Cost:      5 points with 3 seeds; published: 24-46 s per epoch on a GPU. Small: 5 runs of half a minute to two on 2
           of an EPYC.
Ours:      small has patches of 4 pixels, 4 blocks, 5,000 images and batches of 128.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="heads_blocks",
        title="Heads, blocks and width of a ConvMixer",
        source="report B, table of its variants (ConvMixer-256/8, patch 2, kernel 5, 25 epochs)",
        recipe="configs/report_b.py",
        points={
            "plain": {},
            "representation": {"model.head": "representation"},
            "bn_dropout": {"model.head": "bn_dropout"},
            "bottleneck": {"model.block": "bottleneck"},
            "dim=512": {"model.dim": 512},
        },
        seeds=(0, 1, 2),
        published={
            "plain": 0.9224,
            "representation": 0.9232,
            "bn_dropout": 0.9220,
            "bottleneck": 0.9183,
            "dim=512": 0.9305,
        },
        scales={
            "small": Scale(
                {
                    "model.patch_size": 4,
                    "model.depth": 4,
                    "train_examples": 5000,
                    "batch_size": 128,
                    "epochs": 4,
                    "eval_every_epochs": 2,
                    "schedule.learning_rate": 0.02,
                },
                seeds=(0,),
            ),
        },
    )
