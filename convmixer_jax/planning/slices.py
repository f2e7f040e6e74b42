"""The same recipe on slices of other sizes, from one or two compiled programs.

    config = common_config(config, cores, devices, examples)    # a batch that they can share, if that is none
    rows = constant_share(recipe, compiled)                     # as many examples on each device: the batch grows
    rows = constant_batch(recipe, place, config, compiled, tell)   # the same batch: fewer examples on each

With the parameters whole on every device (config.fsdp_devices 1), a device's program depends on its own examples
alone: the number of devices is in nothing but the groups of its sums, whose bytes stay. So the first rows follow from
one program; of the second kind, what lies between two compiled shares of the batch is taken to grow evenly.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from convmixer_jax.errors import UserError
from convmixer_jax.planning.chips import Chip, even_sides
from convmixer_jax.planning.compiled import Outcome, Place, Work, compile_update
from convmixer_jax.planning.estimate import between, update_times
from convmixer_jax.training.checks import check_against_mesh
from convmixer_jax.training.mesh import DATA_AXIS, FSDP_AXIS

CHIPS_OF_SLICES = (8, 16, 32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the hours of a run follow from.

    efficiency: share of Times.bound that is reached, above 0 to 1. cores: devices of a chip.
    """

    chip: Chip
    cores: int
    epochs: int
    train_examples: int
    efficiency: float

    def row(self, chips: int, batch_size: int, need: int | None, work: Work, scaled: bool) -> dict[str, Any]:
        """Returns what an update of so many images takes on so many chips. need: bytes on each device."""
        times = update_times(work, self.chip, even_sides(chips, self.chip.axes))
        seconds = times.bound / self.efficiency
        return {
            "chips": chips,
            "batch_size": batch_size,
            "per_device": batch_size // (chips * self.cores),
            "bytes": need,
            "scaled": scaled,
            "link_seconds": times.links,
            "seconds": seconds,
            "images_per_sec": batch_size / seconds,
            "hours": self.hours(batch_size, seconds),
        }

    def hours(self, batch_size: int, seconds: float) -> float:
        """Returns the hours of all updates of the run; the tail of an epoch is left out, as in a run."""
        return self.epochs * (self.train_examples // batch_size) * seconds / 3600


def refusal(config: ConfigDict, devices: int) -> str | None:
    """Returns why so many devices cannot share the config's batch, or None."""
    try:
        # Of a mesh, the check reads its size.
        check_against_mesh(config, cast(Mesh, AbstractMesh((devices, 1), (DATA_AXIS, FSDP_AXIS))))
    except UserError as error:
        return str(error)
    return None


def common_config(config: ConfigDict, cores: int, devices: int, train_examples: int) -> ConfigDict | None:
    """Returns the config with a batch that so many devices can share, where they cannot share its own; None: no way.

    On each device a power of two, at most what each of the smallest slice of the table would have of the config's own
    batch. cores: devices of a chip.
    """
    most = config.batch_size // (CHIPS_OF_SLICES[0] * cores)
    for exponent in reversed(range(most.bit_length())):
        changed: ConfigDict = config.copy_and_resolve_references()
        changed.batch_size = devices * 2**exponent
        if changed.batch_size <= train_examples and refusal(changed, devices) is None:
            return changed
    return None


def constant_share(recipe: Recipe, outcome: Outcome) -> list[dict[str, Any]]:
    """Returns rows with as many examples on each device as in `outcome`, which fits; its program is that of all."""
    assert outcome.work is not None
    rows = []
    for chips in CHIPS_OF_SLICES:
        batch_size = outcome.per_device * chips * recipe.cores
        if batch_size > recipe.train_examples:
            rows.append(
                {"chips": chips, "note": f"a batch of {batch_size}: there are {recipe.train_examples} examples"}
            )
            continue
        scaled = chips * recipe.cores != outcome.experiment.mesh.size
        need = outcome.need.total if outcome.need else None
        rows.append(recipe.row(chips, batch_size, need, outcome.work, scaled))
    return rows


def shares(config: ConfigDict, cores: int) -> dict[int, int]:
    """Returns the examples on each device by the number of chips, where these can share the batch."""
    return {
        chips: config.batch_size // (chips * cores)
        for chips in CHIPS_OF_SLICES
        if refusal(config, chips * cores) is None
    }


def compiled_shares(
    place: Place,
    config: ConfigDict,
    wanted: Sequence[int],
    known: Mapping[int, Outcome],
    tell: Callable[[str], None],
) -> dict[int, Outcome]:
    """Returns outcomes by the examples on each device: `known`, the smallest of `wanted`, and the largest that fits.

    What lies between two that fit is not compiled, nor what is more than one that does not.
    """
    found = dict(known)

    def compile_share(share: int) -> None:
        changed = config.copy_and_resolve_references()
        changed.batch_size = share * place.devices
        tell(f"compiling with {share} images on each device")
        found[share] = compile_update(place, changed)

    if min(wanted) not in found:
        compile_share(min(wanted))
    for share in sorted(set(wanted), reverse=True):
        if any(share <= other for other, outcome in found.items() if outcome.fits):
            break
        if not any(share >= other for other, outcome in found.items() if not outcome.fits):
            compile_share(share)
    return found


def constant_batch(
    recipe: Recipe, place: Place, config: ConfigDict, known: Sequence[Outcome], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Returns rows with the config's batch on each slice, compiling what is needed of its shares.

    known: outcomes of the config, or of it with another batch size.
    """
    wanted = shares(config, recipe.cores)
    by_share = {outcome.per_device: outcome for outcome in known}
    if wanted:
        by_share = compiled_shares(place, config, list(wanted.values()), by_share, tell)
    fitting = {share: outcome for share, outcome in by_share.items() if outcome.work and outcome.fits}
    refused = min((share for share, outcome in by_share.items() if not outcome.fits), default=None)
    rows = []
    for chips in CHIPS_OF_SLICES:
        if chips not in wanted:
            rows.append({"chips": chips, "note": refusal(config, chips * recipe.cores)})
        elif refused is not None and wanted[chips] >= refused:
            need = by_share[refused].need
            told = f"{need.total / 1e9:.2f} GB" if need else "more than there is"
            rows.append({"chips": chips, "note": f"does not fit: {refused} images on a device need {told}"})
        else:
            rows.append(share_row(recipe, config, chips, wanted[chips], fitting))
    return rows


def share_row(
    recipe: Recipe, config: ConfigDict, chips: int, share: int, fitting: Mapping[int, Outcome]
) -> dict[str, Any]:
    """Returns the row of so many chips, from the programs of the least and the most examples that there are."""
    if not fitting:
        return {"chips": chips, "note": "nothing that fits was compiled"}
    least, most = fitting[min(fitting)], fitting[max(fitting)]
    exact = fitting.get(share)
    span = most.per_device - least.per_device
    part = (share - least.per_device) / span if span else 0.0
    if exact is None and not 0 < part < 1:
        return {"chips": chips, "note": f"{share} images on each device were not compiled"}
    low, high = (exact, exact) if exact else (least, most)
    assert low.work is not None
    assert high.work is not None
    need = None
    if low.need and high.need:
        need = low.need.total + int((0.0 if exact else part) * (high.need.total - low.need.total))
    work = low.work if exact else between(low.work, high.work, part)
    return recipe.row(chips, config.batch_size, need, work, scaled=exact is None or chips != exact_chips(exact, recipe))


def exact_chips(outcome: Outcome, recipe: Recipe) -> int:
    """Returns the chips that an outcome was compiled for."""
    return outcome.experiment.mesh.size // recipe.cores
