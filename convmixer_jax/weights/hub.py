"""Weights from the Hugging Face hub: "hub:timm/convmixer_768_32.in1k" names a repository.

path = download("hub:timm/convmixer_768_32.in1k")       # the file in huggingface_hub's cache
"""

from pathlib import Path

from convmixer_jax.errors import UserError

SCHEME = "hub:"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first that a repository has


def is_hub(place: str) -> bool:
    """Whether the place is a repository of the hub."""
    return place.startswith(SCHEME)


def download(place: str) -> Path:
    """Returns the repository's file of weights, downloaded unless it was before. Raises UserError where it cannot."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise UserError(f"{place} wants huggingface_hub: pip install huggingface_hub") from error
    # What went wrong is told once, here, not at each of its attempts.
    logging.set_verbosity_error()
    repository = place.removeprefix(SCHEME)
    for name in FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # nothing answered; it is an EntryNotFoundError, too
            raise unreachable(place, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the name, the rights, the network: each library below raises its own
            raise unreachable(place, error) from error
    raise UserError(f"{place} has none of {', '.join(FILES)}: download its file of weights yourself and name that")


def unreachable(place: str, error: Exception) -> UserError:
    """Returns the mistake, in one line, of a repository that could not be read."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    return UserError(
        f"{place} could not be downloaded ({reason[:200]}): check the name (hub:ORGANISATION/REPOSITORY) and the "
        f"network, or download {FILES[0]} elsewhere and give that file"
    )
