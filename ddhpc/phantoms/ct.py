"""Chest CT phantoms: synthetic volumes with labels, for people without a hospital. Not patients.

One pure function of a seed and a number draws a body with fat and muscle, lungs, heart, vessels, airways, bones and
table; of varying build, breath, voxel spacing, field of view and stored orientation; with correlated noise. Half of
them are CT-0, a quarter each CT-2 and CT-3, labels and folders named as in MosMedData (arXiv:2005.06465). Disease
raises 4 to 18 % (CT-2) or 11 to 30 % (CT-3) of the lung by more than 100 HU, the 5 to 95 % range of 40 phantoms each.
It gathers round a few places: of 4x4x2 subdomains with lung, 56 % look healthy in the median CT-2, 43 % in the median
CT-3, and none of them sees the disease of more than 66 % of the ill. Findings of other kinds are drawn alike for all.

Calibrated so that a global 3D CNN is far from perfect: four convolutional layers of 8 to 64 channels (SGD, one-cycle
to 0.05, 64x64x32 voxels, one thread) told CT-0 from CT-2 and CT-3 with a test accuracy of 85 % for 240 training
phantoms and 40 epochs (mean of 3 seeds, 160 test phantoms, area under the ROC curve 0.94) and 82 % for 96 and 60
epochs (one seed, 304 test phantoms).
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter

from ddhpc import __version__
from ddhpc.errors import InputError
from ddhpc.phantoms.chest import Grid, chest
from ddhpc.phantoms.disease import Severity, diseased, with_findings
from ddhpc.wording import by

SEVERITY = {
    "CT-0": None,
    "CT-2": Severity(foci=(1, 3), lesions=(8, 24), radius=(16, 44), opacity=(0.4, 1.0), consolidated=0.15),
    "CT-3": Severity(foci=(2, 5), lesions=(14, 36), radius=(20, 50), opacity=(0.5, 1.0), consolidated=0.3),
}
CYCLE = ("CT-0", "CT-2", "CT-0", "CT-3")
STORED_AXES = ("LPS", "LAS", "RAS", "LPI")
SMALLEST = 32
"""Fewest voxels of a side that show a chest."""
FIELD, HEIGHT = (380, 440), (270, 320)
"""Millimetres in plane and across the slices, at least and at most."""
VOXEL_SIZE = "2.6 to 4 mm in plane, 4.5 to 7.3 mm between slices"
README = """\
# Chest CT phantoms: synthetic, not patients
{scans} volumes of {patients} phantoms drawn by ddhpc {version} with seed {seed}. No person was scanned for them,
and nothing learned from them says anything about people: call results on them phantom results.

- `CT-0` healthy, `CT-2` ground-glass opacities in a small part of the lungs, `CT-3` in a larger part; the names
  are those of MosMedData, the amounts are our own
- `labels.csv`: path, label and patient of each volume; several of a patient differ in noise, sharpness and orientation
- Hounsfield units as int16, {voxels}, stored in several orientations

`{command}`
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """A labelled volume as it is stored."""

    label: str
    voxels: np.ndarray
    """[i, j, k] int16, Hounsfield units."""
    affine: np.ndarray
    """[4, 4] to RAS+ millimetres."""


def phantom(seed: int, number: int, scan: int = 1, shape: Sequence[int] | None = None) -> Phantom:
    """Phantom `number`, 1 or more, of a seed; the same whatever was drawn before.

    Later scans of it show the same body and disease with other noise, sharpness and stored orientation. Those of
    another shape (voxels to the right, to the front and up) show other bodies. Raises InputError for a shape that no
    phantom can have.
    """
    _check_shape(shape)
    rng = np.random.default_rng((seed, number))
    label = CYCLE[(number - 1) % len(CYCLE)]
    grid = _grid(rng, shape)
    healthy = chest(rng, grid)
    voxels = with_findings(rng, grid, healthy)
    severity = SEVERITY[label]
    if severity:
        voxels = diseased(rng, grid, healthy, voxels, severity)
    if scan > 1:
        rng = np.random.default_rng((seed, number, scan))
    voxels = _scanned(rng, grid, voxels)
    affine = np.diag([*grid.spacing, 1.0])
    affine[:3, 3] = grid.origin
    turned = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(str(rng.choice(STORED_AXES))))
    return Phantom(
        label=label,
        voxels=np.ascontiguousarray(apply_orientation(voxels, turned)),
        affine=affine @ inv_ornt_aff(turned, grid.shape),
    )


def write_phantoms(
    out: Path | str,
    *,
    patients: int = 120,
    scans: int = 1,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Writes phantoms 1 to `patients` as `<label>/study_0001.nii.gz`, labels.csv (path,label,patient) and README.md.

    Further scans of a patient are `<label>/study_0001_scan_2.nii.gz` and so on.

    Without a shape they are of about 128x128x52 voxels, a little different each. Gives the number of volumes by label.
    Takes about half a second and 1 MB a volume, and grows with the voxels. Raises InputError, naming the option or the
    directory, for too few patients or scans, a seed below 0, a shape that no phantom can have, and a directory that is
    not empty or cannot be written.
    """
    out = Path(out)
    if patients < 3 * len(CYCLE):
        raise InputError(f"--patients {patients}: expected at least {3 * len(CYCLE)}, three splits of each label")
    if scans < 1:
        raise InputError(f"--scans {scans}: expected at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    _check_shape(shape)
    rows = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise InputError(f"{out}: is not empty; expected a new directory")
        for label in SEVERITY:
            (out / label).mkdir()
        for n in range(patients * scans):
            number, scan = n // scans + 1, n % scans + 1
            drawn = phantom(seed, number, scan, shape)
            name = f"{drawn.label}/study_{number:04}{f'_scan_{scan}' if scan > 1 else ''}.nii.gz"
            _save(out / name, drawn)
            rows.append((name, drawn.label, f"patient_{number:04}"))
            progress(n + 1, patients * scans)
        with open(out / "labels.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "label", "patient"), *rows])
        (out / "README.md").write_text(
            README.format(
                scans=len(rows),
                patients=patients,
                seed=seed,
                version=__version__,
                voxels=_voxel_size(shape),
                command=prepare_command("THIS_FOLDER", shape),
            )
        )
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error
    return dict(sorted(Counter(label for _, label, _ in rows).items()))


def prepare_command(folder: Path | str, shape: Sequence[int] | None) -> str:
    """That packs the phantoms of a folder with all the voxels that they were given."""
    sizes = f" --shape {' '.join(map(str, shape))}" if shape else ""
    return f"python -m ddhpc prepare ct {folder} --output ct.h5{sizes} --groups CT-0 CT-2,CT-3"


def _check_shape(shape: Sequence[int] | None) -> None:
    if shape and not (len(shape) == 3 and shape[0] == shape[1] and min(shape) >= SMALLEST):
        shown = " ".join(map(str, shape))
        raise InputError(f"--shape {shown}: expected three numbers of {SMALLEST} or more, the first two equal")


def _voxel_size(shape: Sequence[int] | None) -> str:
    if not shape:
        return VOXEL_SIZE
    sides = ((FIELD, shape[0]), (HEIGHT, shape[2]))
    plane, between = (" to ".join(f"{length / count:.2g}" for length in lengths) for lengths, count in sides)
    return f"{by(tuple(shape))} voxels, {plane} mm in plane, {between} mm between slices"


def _save(path: Path, drawn: Phantom) -> None:
    """Appears whole or not at all."""
    image = nibabel.Nifti1Image(drawn.voxels, drawn.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = "ddhpc synthetic phantom, not a patient"
    part = path.with_name(f".{path.name}")
    nibabel.save(image, part)
    os.replace(part, path)


def _grid(rng: np.random.Generator, shape: Sequence[int] | None) -> Grid:
    count, slices = (shape[0], shape[2]) if shape else (int(rng.integers(112, 145)), int(rng.integers(44, 61)))
    step, thick = rng.uniform(*FIELD) / count, rng.uniform(*HEIGHT) / slices
    shift = rng.normal(0, 8, 2)
    return Grid(
        shape=(count, count, slices),
        spacing=(round(step, 3), round(step, 3), round(thick, 3)),
        origin=(
            round(-step * (count - 1) / 2 + shift[0], 2),
            round(-step * (count - 1) / 2 + shift[1], 2),
            round(rng.uniform(-55, -25), 2),
        ),
    )


def _scanned(rng: np.random.Generator, grid: Grid, voxels: np.ndarray) -> np.ndarray:
    """Blurred by the scanner, with noise that is correlated in plane, inside its round field of view."""
    blur = rng.uniform(0.35, 0.7)
    sharp = gaussian_filter(voxels, (blur, blur, 0.3), mode="nearest")
    noise = gaussian_filter(rng.normal(size=grid.shape).astype(np.float32), (0.6, 0.6, 0.2))
    x, y, _ = grid.axes
    middle = [axis.mean() for axis in (x, y)]
    distance = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (grid.shape[0] * grid.spacing[0] / 2) ** 2
    sharp += noise / noise.std() * rng.uniform(12, 40) * (1.2 - 0.6 * distance)
    return np.where(distance < 1, sharp, -1024).round().clip(-1024, 3071).astype(np.int16)
