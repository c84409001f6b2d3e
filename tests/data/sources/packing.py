"""Packing as tests do it."""

from pathlib import Path

from ddhpc.data.sources.source import Packing


def packed_by(prepare, kind, source, output, *, overwrite=True, progress=lambda done, total: None, **options):
    """What a source gives with these options of its kind."""
    return prepare(Path(source), kind(**options), Packing(output=Path(output), overwrite=overwrite, progress=progress))
