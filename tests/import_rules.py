"""Which file may import what: the order of the rooms, and the few files that may know a library."""

# What a file may import of this package: its own room, and what its row names. Of two rows the more exact one counts.
# A file of training/ is no room, so each has a row of its own.
MAY_IMPORT = {
    # Below everything.
    "errors": (),
    "config": (),
    "presets": ("errors",),
    "config_rules": ("config", "errors", "presets"),
    "config_record": ("config", "errors", "runs.files"),
    # The rooms know nothing of each other.
    "models": ("errors", "ops"),
    "ops": ("errors",),
    "augment": ("errors",),
    "data": ("augment.boxes", "errors"),
    "runs": ("errors",),
    "runs.provenance": ("measuring.machine",),
    "measuring": (),
    "cluster": ("errors", "runs.aborts", "runs.rendezvous"),
    # What is done with trained weights: no training is needed.
    "weights": ("errors", "runs.files"),
    "inference": ("config", "config_record", "config_rules", "data", "errors", "models", "ops", "runs", "weights"),
    # The leaves of training know neither the rooms nor, but for the sums in the state, each other.
    "training.mesh": ("errors",),
    "training.checks": ("config", "data.datasets", "errors", "models.variants"),
    "training.schedules": ("errors",),
    "training.optimizers": ("errors",),
    "training.metrics": (),
    "training.state": ("training.mesh", "training.metrics"),
    "training.prepare": ("training.state",),
    "training.update": ("training.schedules", "training.state"),
    # The steps join the leaves; model, augmentation and data come as arguments.
    "training.step": (
        "training.mesh", "training.metrics", "training.prepare", "training.schedules", "training.state",
        "training.update",
    ),
    "training.dispatch": ("data.inputs", "data.placing", "training.mesh", "training.state", "training.step"),
    "training.pace": (),
    "training.agreement": ("config", "errors", "runs.provenance"),
    "training.capacity": ("data.inputs", "errors", "runs.memory"),
    "training.evaluate": ("data.inputs", "training.metrics", "training.state", "training.step"),
    # From the config to plain values: every room but the one that writes files.
    "training.assembly": (
        "config", "config_rules", "errors", "models", "ops", "augment", "data", "runs.memory", "training.checks",
        "training.dispatch", "training.mesh", "training.optimizers", "training.prepare", "training.schedules",
        "training.state", "training.step", "training.update",
    ),
    # Above it.
    "training.program": (
        "models.variants", "ops", "runs", "training.assembly", "training.capacity", "training.stopping",
    ),
    "training.result": ("runs", "training.assembly"),
    "training.given": (
        "data.datasets", "data.placing", "errors", "inference", "training.assembly", "training.state", "weights",
    ),
    "training.resume": (
        "config", "config_record", "data.datasets", "errors", "runs", "training.assembly", "training.given",
        "training.program", "training.state", "weights.converted",
    ),
    "training.run_inputs": ("data", "training.assembly", "training.mesh"),
    "training.reports": ("runs", "training.metrics"),
    "training.context": ("runs",),
    "training.stopping": ("errors", "runs"),
    "training.saving": ("training.context", "training.reports", "training.state", "training.stopping"),
    "training.scores": (
        "data.inputs", "training.assembly", "training.capacity", "training.context", "training.evaluate",
        "training.reports", "training.state", "training.stopping",
    ),
    "training.loop": (
        "config_record", "errors", "data", "training.assembly", "training.context", "training.dispatch",
        "training.mesh", "training.metrics", "training.pace", "training.program", "training.reports", "training.saving",
        "training.scores", "training.state", "training.stopping",
    ),
    "training.runner": ("config", "config_record", "errors", "data", "runs", "training", "weights.converted"),
    # Beside everything: nothing imports them, but for benchmarks what planning knows of absent chips.
    "planning": (
        "config", "data.datasets", "data.placing", "errors", "ops.choice", "runs.memory", "training.assembly",
        "training.capacity", "training.checks", "training.mesh", "training.program", "training.update",
    ),
    "plan": (
        "command_line", "commands", "data.datasets", "errors", "planning", "runs.allocator", "runs.progress",
    ),
    "benchmarks": (
        "augment", "commands", "data", "errors", "measuring", "ops", "runs.allocator", "runs.clock", "runs.memory",
        "runs.provenance", "training",
    ),
    "benchmarks.speed": ("benchmarks", "config", "errors", "measuring"),
    "benchmarks.scaling": ("benchmarks", "config", "errors", "measuring"),
    "benchmarks.operations": (
        "benchmarks", "config", "config_rules", "data.datasets", "errors", "measuring", "models.variants",
        "ops.choice", "training.checks",
    ),
    "benchmarks.tpu": (
        "benchmarks", "config", "data", "errors", "ops", "planning", "runs.memory", "runs.provenance", "training",
    ),
    "benchmark": ("benchmarks", "command_line", "commands", "config_rules", "errors", "ops.choice"),
    "command_line": ("cluster", "config", "config_rules", "errors", "presets"),
    "commands": (
        "command_line", "errors", "runs.files", "runs.programs", "runs.progress", "runs.signals", "weights.hub"
    ),
    "main": (
        "cluster", "command_line", "commands", "errors", "runs.allocator", "runs.clock", "runs.signals",
        "training.agreement", "training.runner",
    ),
    "convert": ("command_line", "commands", "errors", "inference", "ops.activations", "runs.progress", "weights"),
    "visualize": (
        "command_line", "commands", "errors", "inference", "runs.files", "runs.progress", "runs.signals",
    ),
    "exporting": ("data", "errors", "inference", "measuring", "ops.choice", "runs.files"),
    "export": ("command_line", "commands", "errors", "exporting", "inference", "runs.files", "runs.progress"),
    "predict": ("commands", "errors", "inference", "runs.files", "runs.progress"),
    "checkpoints": ("command_line", "commands", "errors", "runs"),
    "ledger": ("command_line", "commands", "errors", "runs.ledger", "runs.progress"),
    "crashing": ("errors", "main", "runs", "training.assembly"),
    "crashtest": ("command_line", "commands", "crashing", "errors", "measuring", "runs"),
    "studying": (
        "command_line", "commands", "config", "config_record", "config_rules", "data.datasets", "errors",
        "models.variants", "planning.planner", "runs", "training.assembly", "training.checks", "training.optimizers",
    ),
    "sweep": ("command_line", "commands", "errors", "runs", "studying"),
    "reporting": (
        "config", "config_record", "errors", "inference", "ledger", "runs", "studying.cost", "studying.folder",
        "studying.study",
    ),
    "publishing": (
        "config", "config_record", "errors", "reporting.looks", "reporting.markdown", "reporting.shown",
        "reporting.summaries", "reporting.workdirs", "runs.files", "runs.ledger", "runs.metrics_log", "runs.progress",
    ),
    "results": ("command_line", "commands", "errors", "publishing", "reporting.workdirs", "runs"),
    "report": ("command_line", "commands", "errors", "reporting", "runs"),
    "preparing": ("data", "errors", "runs.files", "runs.progress"),
    "prepare": ("command_line", "commands", "errors", "preparing", "runs.progress", "runs.signals"),
}  # fmt: skip

# Packages that only these files may import, late or not.
ONLY_IN = {
    "ml_collections": (
        "config", "config_record", "config_rules", "command_line", "training.agreement", "training.assembly",
        "training.checks",
        "training.loop", "training.resume", "training.runner", "benchmarks.augmentation",
        "benchmarks.ours", "benchmarks.scaling", "benchmarks.speed", "benchmarks.torch_side",
        "benchmarks.operations", "benchmarks.tpu", "benchmarks.input_sides", "benchmarks.input_speed",
        "benchmarks.loader_side", "planning.compiled", "planning.planner", "planning.slices", "planning.ways",
    ),
    "absl": ("command_line",),
    "orbax": ("runs.checkpoint", "runs.reading"),
    "tensorboard": ("runs.events",),
    "tqdm": (
        "runs.progress", "data.bad_examples", "data.bars",
    ),
    "array_record": ("data.sources.records",),
    "cykooz_resizer": ("data.host_crops",),
    "simplejpeg": ("data.decode",),
    "PIL": ("data.fitting", "inference.preprocess", "runs.events", "runs.pictures", "benchmarks"),
    "sklearn": ("data.sources.digits", "benchmarks.augmentation", "benchmarks.made_up"),
    "tensorflow_datasets": ("data.sources.tfds_directory",),
    "tensorflow": ("data.tensorflow_cpu",),
    "torch": ("benchmarks.loader_side", "benchmarks.torch_model", "benchmarks.torch_side", "weights.reading"),
    "safetensors": ("weights",),
    "huggingface_hub": ("weights.hub",),
    "jinja2": ("reporting.page",),
    "matplotlib": ("benchmarks.scaling", "inference.confusion", "inference.figures", "ledger", "reporting"),
    "optuna": ("studying",),
    "sqlalchemy": ("studying",),
    "wandb": ("runs.wandb_writer",),
    "torchvision": (),
    "onnx": ("exporting",),
    "onnxruntime": ("exporting",),
}  # fmt: skip
