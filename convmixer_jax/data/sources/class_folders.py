"""The images below the folders of classes, each found once, and nothing swallowed that does not belong there.

    by_class = images_by_class(Path("photos"), "train")      # {"cat": ["train/cat/1.jpg", ...], "dog": [...]}

Names are sorted by code point, so neither the file system nor the machine matters. Images are not opened.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from convmixer_jax.data.sources.folders import listed
from convmixer_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")  # in any case
# What operating systems leave behind, in lower case. So is passed over whatever begins with a dot.
IGNORED = ("thumbs.db", "desktop.ini", "__macosx")


def images_by_class(root: Path, part: str) -> dict[str, list[str]]:
    """Returns the images of each class, as seen from `root`, all sorted. Their classes are the folders in `root/part`.

    part: "" for `root` itself. Links are followed.
    Raises UserError, naming it, for what cannot be read, is no image, belongs to no class, or is found twice.
    """
    folder = root / part
    entries = list(_entries(str(folder)))
    loose = [entry.name for entry in entries if not _is_folder(entry)]
    if loose:
        raise UserError(
            f"{folder} must hold a folder for each class, and has {listed(loose)} beside them: put images into the "
            "folder of their class, and other files elsewhere"
        )
    classes = sorted(entry.name for entry in entries)
    _check_names(folder, classes)
    seen: dict[str, str] = {}
    return {name: _images_below(root, f"{part}/{name}" if part else name, seen) for name in classes}


def _images_below(root: Path, top: str, seen: dict[str, str]) -> list[str]:
    """Returns the sorted names of the images in the folder `top` and below, as seen from `root`.

    seen: the folders that were walked, by their real paths; a link may lead back to them.
    """
    images: list[str] = []
    ahead = [(top, os.path.realpath(root / top))]
    while ahead:
        inner, real = ahead.pop()
        if real in seen:
            raise UserError(
                f"{root / inner} and {root / seen[real]} are one folder, by a link: its images would count twice; "
                "remove the link"
            )
        seen[real] = inner
        stray: list[str] = []
        for entry in _entries(str(root / inner)):
            name = f"{inner}/{entry.name}"
            if _is_folder(entry):
                ahead.append((name, os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                images.append(name)
            else:
                stray.append(entry.name)
        if stray:
            raise UserError(f"{root / inner} has, beside images ({' '.join(SUFFIXES)}), {listed(stray)}: remove it")
    return sorted(images)


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    """Yields what can be seen in a folder; raises UserError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                    continue
                if not entry.name.isascii() and not _is_text(entry.name):
                    raise UserError(
                        f"{folder} has a name that is not UTF-8 ({os.fsencode(entry.name)!r}): rename it, since it "
                        "would be another one on other machines"
                    )
                yield entry
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): give yourself the right to") from error


def _is_text(name: str) -> bool:
    # What is no UTF-8 comes from the file system as surrogates, which no text has.
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Returns whether it is a folder, and False where it is a file. Raises UserError where it is neither.

    Links are followed. No more is asked of the file system than that, for as many images as there may be.
    """
    try:
        if entry.is_dir():
            return True
        if entry.is_file():
            return False
    except OSError as error:  # a link that leads to itself, or through a folder that is locked
        raise UserError(f"{entry.path} leads nowhere ({error.strerror}): remove it, or put it right") from error
    kind = "a link to nothing" if entry.is_symlink() else "neither a file nor a folder"
    raise UserError(f"{entry.path} is {kind}: remove it, or put it right")


def _check_names(folder: Path, classes: list[str]) -> None:
    """Raises UserError where the name of a class would break a line, or two cannot be told apart when printed."""
    alike: dict[str, str] = {}
    for name in classes:
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            raise UserError(f"{folder} has the class {name!r}: rename it, without control characters")
        other = alike.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{folder} has the classes {other!a} and {name!a}, which look the same: move the images of one into "
                "the other"
            )
