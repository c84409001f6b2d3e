"""Where packed files are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ddhpc.errors import InputError


def find(file: str) -> Path:
    """Path of a packed file: as typed, else, where relative, among the data that ships with the package.

    Raises InputError, naming the option --data.file and the places looked at, where there is none.
    """
    shipped = [Path(__file__).parents[3] / "data", Path(sys.prefix) / "share" / "ddhpc"]
    typed = Path(file)
    places = [typed, *(folder / typed for folder in shipped if not typed.is_absolute())]
    for place in places:
        if os.path.isdir(place):
            raise InputError(
                f"--data.file {file}: is a directory; expected a packed file, which `prepare` makes: "
                f"python -m ddhpc prepare images {file} --output x.h5 --size 64 64"
            )
        if os.path.exists(place):
            return place
    looked = ", ".join(str(place.absolute()) for place in places)
    raise InputError(f"--data.file {file}: no such file; looked for {looked}; `prepare` makes a packed file")
