"""The models of a study's points: whether they can be at all, and what they cost.

    models = Models(plan)
    models.check(plan.points)            # raises UserError for the first that cannot be
    models.cost(point).params

Building a model imports JAX; nothing is computed, and no device is asked for anything.
"""

import json
from collections.abc import Iterable
from typing import Any

from convmixer_jax.command_line import data_folder
from convmixer_jax.data.datasets import Dataset, find_dataset, split_sizes
from convmixer_jax.errors import UserError
from convmixer_jax.models.variants import make_model
from convmixer_jax.studying.cost import Cost, model_cost
from convmixer_jax.studying.plan import Plan
from convmixer_jax.studying.study import Point
from convmixer_jax.training.assembly import assemble_images, assemble_schedule, epochs_to_steps
from convmixer_jax.training.checks import check_against_dataset, check_average, check_model
from convmixer_jax.training.optimizers import make_optimizer


class RefusedError(UserError):
    """A point that cannot be run. excess: how far it is from what can be; its parameters beyond the budget, or 1."""

    def __init__(self, message: str, excess: float):
        super().__init__(message)
        self.excess = excess


class Models:
    """Keeps what it has found out."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._datasets: dict[tuple[Any, ...], Dataset] = {}
        self._costs: dict[str, Cost] = {}

    def dataset(self, config: Any) -> Dataset:
        """Returns the data set of a config; reads no images."""
        key = (config.dataset, config.image_size, config.crop_pct)
        if key not in self._datasets:
            name, size, crop = key
            folder = data_folder(self._plan.data_dir)
            self._datasets[key] = find_dataset(name, folder, image_size=size, crop_pct=crop)
        return self._datasets[key]

    def cost(self, point: Point) -> Cost:
        """Returns the cost of a point's model."""
        config = self._plan.config(point)
        dataset = self.dataset(config)
        model = config.model.to_dict()
        key = json.dumps([model, dataset.num_classes, dataset.image_shape])
        if key not in self._costs:
            self._costs[key] = model_cost(model, dataset.num_classes, dataset.image_shape)
        return self._costs[key]

    def images(self, point: Point) -> tuple[int, int]:
        """Returns how many images a run of the point trains on and evaluates, those of all epochs.

        Raises UserError where they do not fill a batch.
        """
        config = self._plan.config(point)
        sizes = split_sizes(self.dataset(config), config.val_fraction, config.train_examples)
        _, steps = epochs_to_steps(config, sizes["train"])
        judged = sizes.get("val", sizes["test"]) * -(-config.epochs // config.eval_every_epochs)
        return steps * config.batch_size, judged + (sizes["test"] if "val" in sizes else 0)

    def require(self, point: Point) -> None:
        """Raises RefusedError for a point whose fields do not fit each other, or which is beyond the budget."""
        try:
            config = self._plan.config(point)
            self._assemble(config)
        except UserError as error:
            raise RefusedError(str(error), excess=1.0) from error
        most = self._plan.most_params
        if most and self.cost(point).params > most:
            params = self.cost(point).params
            raise RefusedError(f"{params:,} parameters are more than {most:,}", excess=params / most - 1)

    def _assemble(self, config: Any) -> None:
        """Makes what a run makes before it asks for devices. Raises UserError for what it could not be made of."""
        dataset = self.dataset(config)
        check_model(config)
        check_against_dataset(config, dataset)
        check_average(config)
        sizes = split_sizes(dataset, config.val_fraction, config.train_examples)
        steps_per_epoch, _ = epochs_to_steps(config, sizes["train"])
        assemble_schedule(config, steps_per_epoch)
        assemble_images(config, dataset)
        make_optimizer(**config.optimizer)
        settings = config.model.to_dict() | {"ops": "reference", "mesh": None}
        make_model(num_classes=dataset.num_classes, dtype=config.dtype, **settings)

    def check(self, points: Iterable[Point]) -> None:
        """Raises UserError for the first point that cannot be run."""
        for point in points:
            try:
                self.require(point)
            except RefusedError as error:
                raise UserError(f"{self._plan.file}: {point.name}: {error}") from error
