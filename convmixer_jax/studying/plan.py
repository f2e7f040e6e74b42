"""A study as it is asked for: at a scale, with what the command line sets, ready to start its runs.

plan = make_plan(Path("studies/kernel_size.py"), scale="small", overrides=["--config.epochs=3"])
plan.arguments(point, seed=0)        # of main, without its --workdir
plan.config(point)                   # as main would read it
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.command_line import parse
from convmixer_jax.config import flatten, get_base, to_plain
from convmixer_jax.errors import UserError, lookup, suggest
from convmixer_jax.studying.loading import check_seeds, find_recipe, load_study
from convmixer_jax.studying.study import FULL, Point, Scale, Study, known_points

# The recipe with the study's settings, where nothing varies.
RECIPE = Point("(its settings)", {})


def literal(value: Any) -> str:
    """Returns a value as a flag of main takes it."""
    return value if isinstance(value, str) else repr(value)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Returns fields as flags of main."""
    return [f"--config.{field}={literal(value)}" for field, value in settings.items()]


@dataclasses.dataclass(frozen=True)
class Plan:
    """file, recipe: paths. settings: fields of all trials, the scale's among them, without the command line's.

    overrides: flags of main that all runs get besides. data_dir: what --data_dir says, None where it is not there.
    points: those that are known before a run is made.
    """

    study: Study
    file: Path
    recipe: Path
    scale: str
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int
    most_params: int
    data_dir: str | None
    points: tuple[Point, ...]
    _configs: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)  # by point: each reads the recipe

    def arguments(self, point: Point, seed: int) -> list[str]:
        """Returns the command line of main for a run, all but its --workdir."""
        return [
            f"--config={self.recipe}",
            *([f"--data_dir={self.data_dir}"] if self.data_dir else []),
            *flags(self.settings),
            *self.overrides,
            *flags(point.parameters),
            f"--config.seed={seed}",
        ]

    def config(self, point: Point) -> Any:
        """Returns the config of a point with its first seed, as main makes it. Raises UserError, naming the point."""
        if point.name not in self._configs:
            try:
                self._configs[point.name] = parse(["sweep", *self.arguments(point, self.seeds[0])]).config
            except UserError as error:
                raise UserError(f"{self.file}: {point.name}: {error}") from error
        return self._configs[point.name]

    def fields(self, point: Point) -> dict[str, Any]:
        """Returns {dotted field: value} of a point's config, as JSON has them."""
        return dict(flatten(to_plain(self.config(point))))

    def record_settings(self) -> dict[str, Any]:
        """Returns {dotted field: value} of all that is set for every run, for study.json."""
        named = {name.removeprefix("--config.").partition("=")[0] for name in self.overrides}
        found = self.fields(RECIPE)
        return {field: found[field] for field in [*self.settings, *sorted(named - self.settings.keys())]}


def make_plan(
    file: Path,
    scale: str = FULL,
    overrides: Sequence[str] = (),
    seeds: tuple[int, ...] = (),
    data_dir: str | None = None,
) -> Plan:
    """Returns the plan of a study's file. seeds: () for the study's own. Raises UserError for every mistake in it."""
    study = load_study(file)
    scales = {FULL: Scale({}), **study.scales}
    chosen = lookup(scales, scale, "--scale")
    if seeds:
        check_seeds(seeds, "--seeds")
    plan = Plan(
        study=study,
        file=file,
        recipe=find_recipe(study, file),
        scale=scale,
        settings={**study.settings, **chosen.settings},
        overrides=tuple(overrides),
        seeds=seeds or chosen.seeds or study.seeds,
        trials=chosen.trials or study.trials,
        most_params=chosen.most_params or study.most_params,
        data_dir=data_dir,
        points=tuple(known_points(study)),
    )
    _check_overrides(plan)
    # A search has an axis in every point; its other points are checked when they are asked for.
    for point in plan.points or (RECIPE,):
        config = plan.config(point)
        if (study.searches or study.pruner != "none") and not config.val_fraction:
            raise UserError(
                f"{file}: config.val_fraction is 0: a study that chooses or prunes needs a validation split, since the "
                "test split is for reports alone; set it in settings, or by --config.val_fraction=0.1"
            )
    return plan


def _check_overrides(plan: Plan) -> None:
    known = [name for name, _ in flatten(get_base())]
    for argument in plan.overrides:
        name = argument.removeprefix("--config.").partition("=")[0]
        if not argument.startswith("--config.") or "=" not in argument:
            raise UserError(f"{argument!r} is not understood: fields of all runs are set by --config.FIELD=VALUE")
        if name not in known:
            raise UserError(f"--config.{name}: there is no such field{suggest(name, known)}; main --help lists them")
        if name == "seed":
            raise UserError(f"{argument}: a study has several seeds: name them by --seeds")
        if name in plan.study.axes:
            raise UserError(f"{argument}: the study {plan.study.name} varies this field; leave it to it")
