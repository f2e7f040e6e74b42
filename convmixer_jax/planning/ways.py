"""Changes of a config with which it fits into memory, each of them compiled and not guessed.

ways = verified_ways(place, config, outcome, tell=print)         # of an outcome that does not fit
"""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from convmixer_jax.errors import UserError
from convmixer_jax.planning.compiled import Outcome, Place, compile_update
from convmixer_jax.training.capacity import ways_out

# Compilations for one way, each with what the one before told.
ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Way:
    """A change as flags, "config.batch_size=256", and what comes of it."""

    flags: str
    outcome: Outcome


def with_flags(config: ConfigDict, flags: str) -> ConfigDict:
    """Returns the config with changes as `ways_out` names them: "config.input=stream with config.batch_size=8"."""
    changed: ConfigDict = config.copy_and_resolve_references()
    for flag in flags.split(" with "):
        name, _, text = flag.removeprefix("config.").partition("=")
        *groups, field = name.split(".")
        group = changed
        for each in groups:
            group = group[each]
        old = group[field]
        group[field] = text == "True" if isinstance(old, bool) else type(old)(text)
    return changed


def fields_of(flags: str) -> list[str]:
    """Returns the fields that such changes are of."""
    return [flag.partition("=")[0] for flag in flags.split(" with ")]


def guesses(outcome: Outcome, limit: int) -> list[str]:
    """Returns the changes that would make it fit, about."""
    return ways_out(outcome.need, limit, outcome.request) if outcome.need else []


def verified_ways(place: Place, config: ConfigDict, outcome: Outcome, tell: Callable[[str], None]) -> list[Way]:
    """Returns the ways that were compiled, those that fit before others; where one does not, it goes further.

    tell: takes a line on what is compiled now.
    """
    if place.limit is None:
        return []
    tried = []
    for flags in guesses(outcome, place.limit):
        found = None
        for _ in range(ATTEMPTS):
            tell(f"compiling with {flags}")
            try:
                found = Way(flags, compile_update(place, with_flags(config, flags)))
            except UserError as error:  # parts that the examples of a device cannot go into
                tell(f"{flags}: {error}")
                break
            further = [more for more in guesses(found.outcome, place.limit) if fields_of(more) == fields_of(flags)]
            if found.outcome.fits or not further:
                break
            flags = further[0]
        if found:
            tried.append(found)
    return sorted(tried, key=lambda way: not way.outcome.fits)
