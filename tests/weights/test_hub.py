"""A repository of the hub is its file of weights; whatever goes wrong is one line with a way out."""

import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from convmixer_jax.errors import UserError
from convmixer_jax.weights.hub import download, is_hub

PLACE = "hub:timm/convmixer_768_32.in1k"


@pytest.fixture
def repository(monkeypatch):
    """Returns a function that sets what each file of the repository gives: a path, or an error."""

    def pretend(files):
        def hf_hub_download(repository, name):
            assert repository == "timm/convmixer_768_32.in1k"
            found = files.get(name, EntryNotFoundError("no such file"))
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)

    return pretend


def test_only_its_scheme_is_a_repository():
    assert is_hub(PLACE)
    assert not is_hub("timm/convmixer_768_32.in1k")


def test_safetensors_come_first(repository):
    repository({"model.safetensors": "/cache/a", "pytorch_model.bin": "/cache/b"})
    assert str(download(PLACE)) == "/cache/a"
    repository({"pytorch_model.bin": "/cache/b"})
    assert str(download(PLACE)) == "/cache/b"


def no_repository() -> RepositoryNotFoundError:
    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # its constructor wants a response of the server
    Exception.__init__(error, "404 Client Error.\nRepository Not Found")
    return error


def offline() -> LocalEntryNotFoundError:
    error = LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")
    error.__cause__ = OSError("Name or service not known")
    return error


ERRORS = {
    "no network": (offline, r"could not be downloaded \(Name or service not known\)"),
    "no repository": (no_repository, r"could not be downloaded \(404 Client Error\.\)"),
    "a bad name": (lambda: ValueError("Repo id must use alphanumeric chars"), "Repo id must use alphanumeric chars"),
}


@pytest.mark.parametrize("error, words", ERRORS.values(), ids=ERRORS)
def test_what_goes_wrong_is_told(repository, error, words):
    repository({"model.safetensors": error()})
    with pytest.raises(UserError, match=rf"{PLACE} .*{words}.*or download model.safetensors elsewhere"):
        download(PLACE)


def test_a_repository_without_weights(repository):
    repository({})
    with pytest.raises(UserError, match=r"has none of model.safetensors, pytorch_model.bin: download its file"):
        download(PLACE)


def test_the_library_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        download(PLACE)
