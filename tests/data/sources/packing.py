"""Packing as tests do it."""

from pathlib import Path

import numpy as np
from PIL import Image

from ddhpc.data.sources.source import Packing


def packed_by(prepare, kind, source, output, *, overwrite=True, progress=lambda done, total: None, **options):
    """What a source gives with these options of its kind."""
    return prepare(Path(source), kind(**options), Packing(output=Path(output), overwrite=overwrite, progress=progress))


def photographs(folder, count=40, side=70):
    """Two classes, each with its last file damaged."""
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (side, side + 20, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:04}.png")
        (folder / name / "z.png").write_bytes((folder / name / "0000.png").read_bytes()[:400])
