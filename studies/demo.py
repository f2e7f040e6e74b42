"""Kernels 3 and 5 with 16 and 32 channels, on the bundled digits: what a study is, in two minutes.

Command:   make demo, or python -m convmixer_jax.sweep --study studies/demo.py
Source:    ours; nobody published it.
Expected:  90 to 98 % on the test split; the larger kernel and more channels are better.
Cost:      4 points with 2 seeds: 8 runs of 10 to 15 seconds on 2 cores of an EPYC, most of which is start-up.
"""

from convmixer_jax.studying.study import Study


def get_study() -> Study:
    return Study(
        name="demo",
        title="Kernel size and width of a ConvMixer on the bundled digits",
        source="ours, no document",
        recipe="configs/digits.py",
        axes={"model.kernel_size": (3, 5), "model.dim": (16, 32)},
        settings={"epochs": 6, "model.depth": 2, "eval_every_epochs": 1},
        seeds=(0, 1),
    )
