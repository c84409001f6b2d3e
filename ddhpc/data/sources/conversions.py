"""What was done to the volumes of a set, for a person."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ddhpc.data.sources.volume import VolumeFacts, VolumePreparation, by


def conversions(facts: Sequence[VolumeFacts], preparation: VolumePreparation) -> list[str]:
    """Notes on volumes and on what they became, a sentence each."""
    packed, spacing, kept = preparation.shape, preparation.spacing, preparation.intensity_range
    axes = Counter(fact.axes for fact in facts)
    shapes = sorted({fact.shape for fact in facts}, key=lambda shape: (math.prod(shape), shape))
    sizes = [size for fact in facts for size in fact.spacing]
    one, many = by(shapes[0]), f"{len(shapes)} shapes between {by(shapes[0])} and {by(shapes[-1])}"
    notes = [
        f"stored as {preparation.dtype}, {by(packed)} voxels "
        "left to right, posterior to anterior, inferior to superior",
        f"read in {many if len(shapes) > 1 else one}, spacings between {min(sizes):g} and {max(sizes):g} mm, "
        f"axes {', '.join(f'{name} {n}' for name, n in axes.most_common())}",
    ]
    if kept:
        notes.append(f"clipped to {kept[0]:g} to {kept[1]:g}")
    if preparation.crop:
        shares = [math.prod(fact.kept) / math.prod(fact.shape) for fact in facts]
        notes.append(f"cropped to {preparation.crop}: {min(shares):.0%} to {max(shares):.0%} of a volume are kept")
    if spacing:
        notes.append(f"resampled to {by(spacing)} mm, centred")
    elif {fact.kept for fact in facts} != {packed}:
        notes.append(f"stretched to {by(packed)} voxels")
    cut = [fact.cut_off for fact in facts if fact.cut_off > 0]
    if cut:
        notes.append(f"cut off by --shape: up to {max(cut):.0%} of {len(cut)} of {len(facts)} volumes")
    remarks = Counter(remark for fact in facts for remark in fact.remarks)
    return notes + [f"{count} of {len(facts)} volumes: {remark}" for remark, count in remarks.most_common()]
