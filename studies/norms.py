"""BatchNorm, as published, against LayerNorm: a ConvMixer-256/8 (patch 1, kernel 9) on CIFAR-10 in 200 epochs.

Command:   python -m convmixer_jax.sweep --study studies/norms.py
Source:    arXiv 2201.09792, table of CIFAR-10 results: 96.03 % with BatchNorm. Its ablation has LayerNorm, too; that
           number is not written here, as we have it at second hand only.
Cost:      2 points with 3 seeds of 200 epochs: made for an accelerator. Small: 2 runs of a minute on 2 cores of EPYC.
Ours:      small has 64 channels, 4 blocks, patches of 4 pixels with kernels of 5, 5,000 images, and crops and flips
           alone: so short a training gains nothing by more.
"""

from convmixer_jax.studying.study import Scale, Study


def get_study() -> Study:
    return Study(
        name="norms",
        title="BatchNorm and LayerNorm in a ConvMixer",
        source="the paper's table of CIFAR-10 (ConvMixer-256/8, patch 1, kernel 9, 200 epochs)",
        recipe="configs/cifar10.py",
        axes={"model.norm": ("batch", "layer")},
        seeds=(0, 1, 2),
        published={"norm=batch": 0.9603},
        scales={
            "small": Scale(
                {
                    "model.dim": 64,
                    "model.depth": 4,
                    "model.patch_size": 4,
                    "model.kernel_size": 5,
                    "augment.order": ("pad_and_crop", "horizontal_flip"),
                    "mixing.mixup_alpha": 0.0,
                    "mixing.cutmix_alpha": 0.0,
                    "train_examples": 5000,
                    "epochs": 6,
                    "eval_every_epochs": 2,
                },
                seeds=(0,),
            ),
        },
    )
