"""What the model of a recorded run costs: parameters, and the FLOPs of an image's way through it.

    cost = recorded_cost(run)
    cost.params, cost.flops

Nothing is computed but shapes.
"""

import functools
import json

from convmixer_jax.config_record import CONFIG_FILE
from convmixer_jax.errors import UserError
from convmixer_jax.inference.loading import run_dataset
from convmixer_jax.reporting.workdirs import Run
from convmixer_jax.studying.cost import Cost, model_cost

MODEL = "model."


def recorded_cost(run: Run) -> Cost:
    """Returns the cost of the model of a run that has a config.

    Raises UserError where this version does not know the model or the data set.
    """
    model = {name.removeprefix(MODEL): value for name, value in run.config.items() if name.startswith(MODEL)}
    try:
        dataset = run_dataset(run.folder, run.record, run.config)
        return _cost(json.dumps(model), dataset.num_classes, dataset.image_shape)
    except UserError:
        raise
    except Exception as error:  # of a damaged config; flax and JAX may raise anything
        raise UserError(f"{run.folder / CONFIG_FILE} holds no model that can be built: {error}") from error


@functools.lru_cache(maxsize=256)  # the seeds of a point have the same model, and a report is made again and again
def _cost(model: str, num_classes: int, image_shape: tuple[int, int, int]) -> Cost:
    return model_cost(json.loads(model), num_classes, image_shape)
