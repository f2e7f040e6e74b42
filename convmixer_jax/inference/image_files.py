"""The image files that a person means: named, in a folder, or matched by a pattern.

files, mistakes = find_images(["cat.jpg", "photos", "more/**/*.png"])
"""

import glob
from collections.abc import Sequence
from pathlib import Path

# What is taken of a folder. A file that is named itself may be called anything.
SUFFIXES = (
    ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip


def find_images(places: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the files of `places`, each once and in their order, and the places without any, with the reason.

    places: files; patterns such as "a/**/*.png"; folders, of which all that has one of SUFFIXES is taken, however deep,
    sorted, but for hidden files and folders. Whether a file exists and is an image shows when it is read.
    """
    files: dict[str, None] = {}
    without: dict[str, str] = {}
    for place in places:
        if not place:
            without[place] = "'' is no name of an image: name a file, a folder (. is the current one) or a pattern"
            continue
        is_pattern = glob.has_magic(place) and not Path(place).exists()
        named = sorted(glob.glob(place, recursive=True)) if is_pattern else [place]
        found = [file for name in named for file in (images_below(name) if Path(name).is_dir() else [name])]
        if not found:
            without[place] = f"{place}: there is no image {'in it' if named else 'with such a name'}"
        files.update(dict.fromkeys(found))
    return list(files), without


def images_below(folder: str) -> list[str]:
    """Returns the image files in a folder and those below it, sorted; with links that lead to nothing."""
    paths = (path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    seen = (path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    # A link to nothing is somebody's image that is missed: reading it tells so.
    return [str(path) for path in sorted(seen) if path.is_file() or (path.is_symlink() and not path.exists())]
