"""Downloads one large file once: from several places, resumable, checked, and never seen half-written.

    fetch(["https://a/x.tar.gz", "https://b/x.tar.gz"], data_dir / "x.tar.gz", md5="c58f...", what="CIFAR-10")

Beside the file stands `x.tar.gz.part` while it is incomplete, and `x.tar.gz.lock` while a process is at it.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.data.bars import bar
from convmixer_jax.data.sources.publishing import one_at_a_time, publish
from convmixer_jax.errors import UserError

_TIMEOUT_S = 30.0  # without a byte for so long, a server counts as gone
_CHUNK_BYTES = 1 << 20
_MAX_CUTS = 5  # of one server's connection, each after some new bytes


class _FetchError(Exception):
    """One URL did not bring the file; the message is the short reason."""


def fetch(urls: Sequence[str], destination: Path, md5: str, what: str) -> None:
    """Makes `destination` exist, downloading it from the first of `urls` that brings the right bytes.

    md5: of the whole file, in hexadecimal. An existing `destination` is taken as it is.
    what: what messages call the file, such as "CIFAR-10".
    A download that was cut, here or in an earlier process, goes on where it stopped, also from another of the URLs.
    Of several processes at once one downloads and the others wait for it.
    Raises UserError, naming every URL with its reason, where none brought it, and where the folder cannot be written.
    """
    if destination.exists():
        return
    try:
        waiting = f"{what}: waiting for another process that is downloading {destination}"
        with one_at_a_time(destination, waiting):
            if not destination.exists():  # another process may have brought it while this one waited
                _fetch_from_any(urls, destination, md5, what)
    except OSError as error:  # of the folder: what goes wrong on the network is a _FetchError
        reason = error.strerror or str(error)
        raise UserError(
            f"{what} cannot be stored as {destination} ({reason}): choose a folder with space that you may write to"
        ) from error


def _fetch_from_any(urls: Sequence[str], destination: Path, md5: str, what: str) -> None:
    part = destination.with_name(destination.name + ".part")
    reasons = []
    for url in urls:
        try:
            _bring_checked(url, part, md5, what)
        except _FetchError as failure:
            reasons.append(f"{url} ({failure})")
        else:
            publish(part, destination)
            return
    raise UserError(f"{what} could not be downloaded: tried {', '.join(reasons)}")


def _bring_checked(url: str, part: Path, md5: str, what: str) -> None:
    resumed = part.exists()
    _bring(url, part, what)
    found = md5_of(part)
    if found == md5:
        return
    part.unlink()
    if not resumed:
        raise _FetchError(f"its md5 is {found}, not {md5}")
    # The damage may be in what an earlier process left, so this URL deserves one try from nothing.
    _bring_checked(url, part, md5, what)


def _bring(url: str, part: Path, what: str) -> None:
    """Brings `part` to the size that the server states, going on after the bytes that are there."""
    for _ in range(_MAX_CUTS):
        start = part.stat().st_size if part.exists() else 0
        response = _request(url, start)
        if response is None:
            return
        with response:
            # A server may ignore the range and send the whole file; appending that would spoil it.
            first = start if _first_byte(response) else 0
            cut = _save(response, part, first, what)
        if cut is None:
            return
        if part.stat().st_size <= start:
            break
    raise _FetchError(cut)


def _request(url: str, start: int) -> http.client.HTTPResponse | None:
    """Returns the answer with the file from byte `start`, or None where the server says that nothing is left."""
    headers = {"User-Agent": "convmixer_jax"}  # some mirrors refuse urllib's own name
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return None  # the part is complete, or longer than the file: its md5 will tell
        raise _FetchError(f"{error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _FetchError(_short(error)) from error
    if _first_byte(response) not in (0, start):
        response.close()
        raise _FetchError(f"sent {response.headers['Content-Range']!r} when asked for the bytes from {start}")
    return response


def _first_byte(response: http.client.HTTPResponse) -> int:
    """Returns where in the file the answer begins; 0 where it is the whole file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _save(response: http.client.HTTPResponse, part: Path, first: int, what: str) -> str | None:
    """Writes the answer into `part` from byte `first`. Returns None, or how the connection was cut before the end."""
    length = response.headers.get("Content-Length")
    total = first + int(length) if length else None
    size = first
    with (
        open(part, "ab" if first else "wb") as file,
        bar(what, total, "B", start=first, scaled=True) as bytes_saved,
    ):
        while total is None or size < total:
            try:
                # read1 hands over what has come; read would lose up to a whole chunk when the connection breaks.
                chunk = response.read1(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                return f"cut at {size:,} bytes: {_short(error)}"
            if not chunk:
                return None if total is None else f"cut at {size:,} of {total:,} bytes"
            size += file.write(chunk)
            bytes_saved.update(len(chunk))
    return None


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # URLError wraps the interesting one
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def md5_of(path: Path) -> str:
    """Returns the MD5 of a file in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        # It guards against accidents; machines in FIPS mode refuse md5 unless told so.
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
