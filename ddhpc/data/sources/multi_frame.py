"""Enhanced multi-frame DICOM: one file with all slices of a volume, taken apart into slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.pixels.utils import pixel_array

ENHANCED = {
    *(uid.EnhancedCTImageStorage, uid.EnhancedMRImageStorage, uid.EnhancedPETImageStorage),
    uid.LegacyConvertedEnhancedCTImageStorage,
    *(uid.LegacyConvertedEnhancedMRImageStorage, uid.LegacyConvertedEnhancedPETImageStorage),
}
"""Classes of files that are volumes."""
SOP_CLASS = b"\x02\x00\x02\x00UI"
"""Begin of the element that names the class of a file."""
START = 512
"""Bytes of a file in which it stands."""
OF_FILE = (
    *("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "SamplesPerPixel", "Rows", "Columns"),
)
OF_FRAME = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameContentSequence": ("StackID", "TemporalPositionIndex"),
}
"""What the groups of a frame, or those that all frames share, hold of it."""


class Frame(pydicom.Dataset):
    """One frame as if it were a file of its own; its pixels are decoded when they are asked for."""

    def __init__(self, whole: pydicom.FileDataset, number: int, groups: list[pydicom.Dataset]) -> None:
        super().__init__()
        self.whole, self.number = whole, number
        self.filename = f"{whole.filename!s}, frame {number}"
        found = [whole[name] for name in OF_FILE if name in whole]
        for sequence, names in OF_FRAME.items():
            items = [item for group in groups for item in group.get(sequence) or ()]
            found += [item[name] for item in items for name in names if name in item]
        for element in found:
            self.add(element)

    @property
    def pixel_array(self) -> np.ndarray:
        """[row, column] as stored."""
        return pixel_array(self.whole, index=self.number - 1)


def is_enhanced(path: Path) -> bool:
    """Whether a DICOM file is a whole volume by the class that it names; raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(START)
    at = start.find(SOP_CLASS) + len(SOP_CLASS)
    size = int.from_bytes(start[at : at + 2], "little")
    return start[at + 2 : at + 2 + size].rstrip(b"\0").decode("latin-1") in ENHANCED


def frames(whole: pydicom.FileDataset) -> Iterator[Frame]:
    """The frames of a file. Raises ValueError where they do not tell their places, or are not of one stack."""
    count, own = int(whole.NumberOfFrames), whole.get("PerFrameFunctionalGroupsSequence") or ()
    if len(own) != count:
        raise ValueError(
            f"{count} frames with {len(own)} places (PerFrameFunctionalGroupsSequence), expected enhanced DICOM "
            "with one for each, or one file a slice"
        )
    shared = list(whole.get("SharedFunctionalGroupsSequence") or ())
    for number, group in enumerate(own, 1):
        yield Frame(whole, number, [*shared, group])


def named(dataset: pydicom.Dataset) -> str:
    """A slice or frame, for messages."""
    number = dataset.get("InstanceNumber")
    return f"{Path(dataset.filename).name}{'' if number is None else f' (InstanceNumber {number})'}"
