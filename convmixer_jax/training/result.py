"""The object of result.json, which evaluation prints too."""

from typing import Any

from convmixer_jax.runs.files import to_json
from convmixer_jax.runs.memory import device_peak_bytes, host_peak_bytes
from convmixer_jax.training.assembly import Experiment


def make_result(
    experiment: Experiment, meta: dict[str, Any], split: str, evaluated: dict[str, Any], step: int
) -> dict[str, Any]:
    """Returns the result of step `step`, evaluated on `split`; fractions are from 0 to 1, NaN is None.

    meta: what the checkpoint of that step carries, see `Loop.meta`. evaluated: n, top1, top5, loss, per_class, and
    top1_flip, top1_raw or top1_ema where they were asked for.
    Weights that were not trained here have step 0 and a meta of Nones. train_top1 is of the last whole epoch's updates,
    on augmented images. `seconds` are wall seconds of all starts;
    `seconds_per_epoch` and `images_per_sec` are of the updates alone, without compilation, evaluation and saving.
    `peak_host_bytes` and `peak_device_bytes` (of one device; None where it does not count) are of this process.
    """
    epochs = step / experiment.steps_per_epoch
    result = {
        "split": split,
        **{name: value for name, value in evaluated.items() if name != "per_class"},
        "train_top1": meta["train_top1"],
        "step": step,
        "epochs": epochs,
        "params": experiment.num_params,
        "seconds": meta["seconds"],
        "seconds_per_epoch": meta["step_seconds"] / epochs if step else None,
        "images_per_sec": step * experiment.config.batch_size / meta["step_seconds"] if step else None,
        "peak_host_bytes": host_peak_bytes(),
        "peak_device_bytes": device_peak_bytes(),
        "per_class_top1": dict(zip(experiment.dataset.class_names, evaluated["per_class"], strict=True)),
    }
    if meta["best"] is not None:
        result |= {"best_val_top1": meta["best"]["val_top1"], "best_val_step": meta["best"]["step"]}
    return to_json(result)
