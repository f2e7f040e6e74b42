"""An archive of somebody's is put where the data set is looked for: checked, whole or not at all.

take_archive(Path("~/Downloads/x.tar.gz"), data_dir / "x.tar.gz", md5="c58f...")
"""

import contextlib
import os
import shutil
from pathlib import Path

from convmixer_jax.data.sources.download import md5_of
from convmixer_jax.data.sources.publishing import one_at_a_time, publish
from convmixer_jax.errors import UserError


def check_archive(archive: Path, md5: str) -> None:
    """Raises UserError unless the file is there and its MD5 is `md5`."""
    found = archive_md5(archive)
    if found != md5:
        raise UserError(
            f"--from {archive} ({archive.stat().st_size:,} bytes) has the md5 {found}, not {md5}: it is another file, "
            "or was cut short; fetch it anew, or leave --from out to download it"
        )


def archive_md5(archive: Path) -> str:
    """Returns the MD5 of the file. Raises UserError where it is no file that can be read."""
    try:
        return md5_of(archive)
    except OSError as error:
        raise UserError(f"--from {archive} cannot be read ({error.strerror}): name the archive, a file") from error


def take_archive(archive: Path, destination: Path, force: bool) -> None:
    """Makes `destination` the same file as `archive`, or a copy where they lie on different disks.

    force: whether another file may be replaced. Raises UserError where there is one, and where it cannot be stored.
    """
    try:
        with one_at_a_time(destination, f"waiting for another process that is storing {destination}"):
            if destination.exists():
                if destination.samefile(archive) or _same_bytes(archive, destination):
                    return
                if not force:
                    raise UserError(f"{destination} is there and differs from --from {archive}: --force replaces it")
            _store(archive, destination)
    except OSError as error:
        raise UserError(
            f"--from {archive} cannot be stored as {destination} ({error.strerror}): choose a --data_dir with "
            f"{archive.stat().st_size / 1e9:.2f} GB free that you may write to"
        ) from error


def _same_bytes(archive: Path, other: Path) -> bool:
    return archive.stat().st_size == other.stat().st_size and md5_of(archive) == md5_of(other)


def _store(archive: Path, destination: Path) -> None:
    part = destination.with_name(destination.name + ".taken")  # .part is that of a download
    part.unlink(missing_ok=True)
    try:
        try:
            os.link(archive.resolve(), part)  # a link to a link would go with what it leads to
        except OSError:  # another disk, or one without links
            shutil.copyfile(archive, part)
            if md5_of(part) != md5_of(archive):
                raise OSError(0, "the copy differs") from None
        publish(part, destination)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
