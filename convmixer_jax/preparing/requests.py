"""What the command line asks for, as every kind of preparation takes it."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Request:
    """name: of the data set. archive: what --from names, or None. force: whether what is there is made anew."""

    name: str
    data_dir: Path
    archive: Path | None = None
    force: bool = False
