"""The base config: every field of a run with its default, unit and meaning.

    config = get_base()
    config.batch_size = 512          # a recipe assigns existing fields only: the config is locked

A recipe is a file in `configs/` whose `get_config()` starts from `get_base()`. Library code has no defaults of its
own: what is not here cannot be configured. What each field accepts is in config_rules.py.
"""

import json
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict


def model_fields() -> ConfigDict:
    """Returns the fields of `config.model`."""
    model = ConfigDict()
    model.preset = ""  # a row of PRESETS: fills the fields of a named model that are as below; empty = none
    model.variant = "convmixer"  # a row of VARIANTS: convmixer, staged (report E's), cnn (report A's)
    model.dim = 256  # channels of every block (h); staged: of the first stage
    model.depth = 8  # blocks (d)
    model.patch_size = 2  # pixels (p)
    model.kernel_size = 5  # patches (k), of the depthwise convolutions; may be even
    model.activation = "gelu"  # gelu (exact), relu
    model.initializer = "pytorch"  # pytorch (the paper's), lecun_normal (flax's), glorot_uniform (Keras's)
    model.norm = "batch"  # batch (as published), layer (over the channels of each position)
    model.norm_momentum = 0.1  # weight of a batch's statistics in the running ones, PyTorch's; Keras: 0.01
    model.norm_epsilon = 1e-5  # added to the variance, PyTorch's; Keras: 1e-3
    model.bn_group_size = 0  # consecutive examples of a micro-batch with BatchNorm statistics of their own; 0 = all
    model.block = "plain"  # the residual branch: plain (as published), bottleneck
    model.bottleneck_factor = 2  # times fewer channels inside of the branch, divides dim; read by: bottleneck
    model.layer_scale = 0.0  # start of learnt factors of each branch's channels; 0 = none
    model.drop_path = 0.0  # stochastic depth: share of residual branches left out in the last block; linear in depth
    model.head = "linear"  # from pooled features to logits: linear (as published), representation, bn_dropout
    model.head_dropout = 0.0  # share of the pooled features set to zero before the head
    model.ops = "auto"  # how it is computed, a row of OPS: auto (the quickest here), reference, channel_major, ...
    model.remat = False  # keep one map per block for the backward pass, compute the others again; a CPU gains nothing
    return model


def augment_fields() -> ConfigDict:
    """Returns the fields of `config.augment`: what the device does to training images, each on its own."""
    augment = ConfigDict()
    augment.order = ("pad_and_crop", "horizontal_flip")  # rows of AUGMENTATIONS, applied in this order
    augment.pad_and_crop = ConfigDict()
    augment.pad_and_crop.pixels = 4  # pixels added to each side
    augment.pad_and_crop.mode = "zero"  # zero (black), reflect
    augment.random_resized_crop = ConfigDict()
    augment.random_resized_crop.scale = (0.75, 1.0)  # share of the area; (0.08, 1.0) breaks CIFAR
    augment.random_resized_crop.ratio = (3 / 4, 4 / 3)  # width to height
    augment.random_resized_crop.interpolation = "bilinear"  # bilinear, bicubic, random (timm); all with antialias
    augment.horizontal_flip = ConfigDict()
    augment.horizontal_flip.probability = 0.5  # per image
    augment.rand_augment = ConfigDict()
    augment.rand_augment.tables = "timm"  # whose RandAugment: timm, torchvision, imgaug
    augment.rand_augment.policy = "rand-m9-mstd0.5-inc1"  # sections m n mstd mmax inc p w; read by: timm
    augment.rand_augment.num_ops = 2  # operations per image; read by: torchvision, imgaug
    augment.rand_augment.magnitude = 9.0  # 0-30; read by: torchvision, imgaug
    augment.rand_augment.interpolation = "default"  # the tables' own, or nearest, bilinear, bicubic, random
    augment.rand_augment.fill = ()  # level 0-255 per channel outside; empty = timm: mean, torchvision: 0, imgaug: 128
    augment.colour_jitter = ConfigDict()
    augment.colour_jitter.brightness = 0.0  # factor within 1 +- this
    augment.colour_jitter.contrast = 0.0  # factor within 1 +- this
    augment.colour_jitter.saturation = 0.0  # factor within 1 +- this
    augment.colour_jitter.hue = 0.0  # turns of the colour wheel, +- this
    augment.colour_jitter.probability = 1.0  # per image
    augment.affine = ConfigDict()
    augment.affine.rotation = 0.0  # degrees, +- this
    augment.affine.shift = 0.0  # share of the side, +- this, each axis on its own
    augment.affine.zoom = 0.0  # factor within 1 +- this, each axis on its own
    augment.affine.interpolation = "bilinear"  # nearest, bilinear, bicubic
    augment.affine.edges = "nearest"  # what lies outside: nearest (the border's pixels), constant (black)
    augment.channel_shift = ConfigDict()
    augment.channel_shift.levels = 0.0  # grey levels added to all channels, +- this
    augment.cutout = ConfigDict()
    augment.cutout.half_side = 16  # pixels from the centre of the black square to its side
    augment.cutout.probability = 0.7  # per image
    augment.random_erasing = ConfigDict()
    augment.random_erasing.probability = 0.25  # per image
    augment.random_erasing.area = (0.02, 1 / 3)  # share of the image
    augment.random_erasing.aspect = (0.3, 1 / 0.3)  # height to width
    augment.random_erasing.fill = "pixel"  # noise per pixel, noise per channel, or constant (0, the mean colour)
    return augment


def mixing_fields() -> ConfigDict:
    """Returns the fields of `config.mixing`: pairs of training examples become one, with soft targets."""
    mixing = ConfigDict()
    mixing.mixup_alpha = 0.0  # of the Beta distribution of the share; 0 = no mixup
    mixing.cutmix_alpha = 0.0  # of the Beta distribution of the area; 0 = no cutmix
    mixing.probability = 1.0  # that examples are mixed at all
    mixing.switch_probability = 0.5  # of cutmix where both are on
    mixing.per = "batch"  # one draw for a batch (timm), or for each example
    return mixing


def optimizer_fields() -> ConfigDict:
    """Returns the fields of `config.optimizer`."""
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # a row of OPTIMIZERS
    optimizer.b1 = 0.9  # decay of the first moment
    optimizer.b2 = 0.999  # decay of the second moment
    optimizer.eps = 1e-8  # added to the root of the second moment; the ImageNet recipe has 1e-3
    optimizer.weight_decay = 0.005  # per update, times the learning rate (adamw) or as it is (adamw_fixed_decay)
    optimizer.decay_mask = "all"  # all (the CIFAR script), kernels (timm: no biases, no BatchNorm)
    optimizer.clip_norm = 1.0  # largest global norm of the gradient; 0 = no clipping
    return optimizer


def schedule_fields() -> ConfigDict:
    """Returns the fields of `config.schedule`: the learning rate."""
    schedule = ConfigDict()
    schedule.name = "triangle"  # a row of SCHEDULES: triangle (the authors'), slanted_triangle, one_cycle, ...
    schedule.learning_rate = 0.05  # the peak
    schedule.warmup_epochs = 0.0  # epochs of linear rise from 0; read by: cosine
    schedule.final_learning_rate = 0.0  # at the last update; read by: cosine
    schedule.offset_epochs = 0.0  # epochs that the schedule is ahead; read by: triangle
    return schedule


def get_base() -> ConfigDict:
    """Returns the locked base config. Its values train a ConvMixer-256/8 on CIFAR-10.

    A field that is added later gets, here, the value that leaves a run as it was without the field: workdirs of before
    are then still recognised (see `differences`).
    """
    config = ConfigDict()

    # Data
    config.dataset = "cifar10"  # a row of DATASETS, such as cifar10 or imagenet, or folder:PATH, or tfds:NAME
    config.image_size = 0  # pixels of a side that images become, where they vary in size; 0 = the data set's own
    config.crop_pct = 0.0  # share of their shorter side that evaluation looks at; 0 = the own, all of it below 128 px
    config.input = "resident"  # resident (all of it on the devices), stream (tf.data, batch by batch)
    config.on_bad_example = "raise"  # a damaged training image: raise (stop), skip (take the next one, and count)
    config.train_examples = 0  # examples: train on a fixed, stratified subset of this size; 0 = all
    config.val_fraction = 0.0  # share of the training split held out for validation, stratified; 0 = none
    config.mean = ()  # per channel, scale 0-1; empty = the data set's own
    config.std = ()  # per channel, scale 0-1; empty = the data set's own

    # Run
    config.seed = 0  # decides initial weights, order of examples and augmentation
    config.init_from = (
        ""  # weights to begin with, to fine-tune: a workdir, converted directory or weights file; "" = none
    )
    config.batch_size = 512  # examples per update over all devices
    config.eval_batch_size = 0  # examples over all devices, rounded up to a multiple of them; 0 = batch_size
    config.epochs = 25  # passes over the training split; the tail that does not fill a batch is left out
    config.dtype = "float32"  # of the computation: float32, bfloat16; parameters, statistics, loss stay float32
    config.devices = 0  # devices to use, the first ones found; 0 = all
    config.fsdp_devices = 1  # devices that split parameters and optimiser state among them; divides the devices
    config.steps_per_dispatch = 0  # updates at most in one call of the devices; 0 = as many as take under a second
    config.accumulate_steps = 1  # micro-batches per update, to save memory (of accelerators); BatchNorm sees one each

    config.model = model_fields()
    config.augment = augment_fields()
    config.mixing = mixing_fields()
    config.label_smoothing = 0.0  # share of each target spread evenly over all classes, in [0, 1)
    config.l2 = 0.0  # times the sum of squares of all kernels, added to the loss (Keras); not multiplied by the rate
    config.optimizer = optimizer_fields()
    config.schedule = schedule_fields()
    config.ema_decay = 0.0  # of a moving average of parameters and statistics, rising from 0.1 to this; 0 = none

    # Evaluation; may change when a run is resumed
    config.eval_params = "raw"  # whose score is top1 and whose is chosen by: raw, ema (the moving average)
    config.eval_flip = False  # also report top1_flip: logits averaged over image and mirror image

    # What is written when; all of this may change when a run is resumed
    config.report_every_steps = 50  # updates between rows of metrics.jsonl
    config.eval_every_epochs = 1  # epochs between evaluations; the last step is always evaluated
    config.checkpoint_every_steps = 500  # updates between checkpoints; the last step is always saved
    config.keep_checkpoints = 2  # newest checkpoints kept; the best is kept too where there is a validation split
    config.wandb_project = ""  # of Weights & Biases: also send the numbers of metrics.jsonl there; "" = nowhere
    config.compilation_cache = True  # keep compiled programs on disk, so that the next start is quicker

    # When things go wrong
    config.max_skipped_steps = 10  # updates in a row with a non-finite loss or gradient that stop the run
    config.stop_grace_seconds = 30.0  # from SIGTERM or SIGINT to the end of the process, in which it saves
    config.watchdog_seconds = 600.0  # without progress in updates, evaluation or a save, that end it; 0 = none
    config.watchdog_compile_seconds = 3600.0  # the same for start-up and compilation; 0 = none
    return config.lock()


def flatten(config: ConfigDict | dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of a config or of what `to_plain` made of one."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields as nested dicts of values that survive JSON unchanged (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))
