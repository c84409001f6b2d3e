"""The kinds of raw data that `prepare` packs: their options, and the source that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from ddhpc.errors import InputError

if TYPE_CHECKING:
    from ddhpc.data.images import Prepared


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of raw data."""

    description: str
    source: str
    """`module:function` that packs it, called with the options of the kind."""
    add_options: Callable[[ArgumentParser], None]

    def pack(self, **options: Any) -> Prepared | None:
        """Pack with these options; imports what reads this kind, which the others need not have installed."""
        prepared: Prepared | None = load(self.source)(**options)
        return prepared


def load(path: str) -> Any:
    """What stands at `module:name`; InputError where a package that it needs is not installed."""
    module, name = path.split(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'ddhpc[ct]' brings what volumes need") from error


def add_common_options(parser: ArgumentParser) -> None:
    """Options of every kind."""
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="packed file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing packed file")


def add_drawing_options(parser: ArgumentParser) -> None:
    """Options of kinds whose sources may lack splits."""
    parser.add_argument("--val-fraction", type=float, default=0.15, help="share drawn as val where there is none")
    parser.add_argument("--test-fraction", type=float, default=0.15, help="share drawn as test where there is none")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn splits")


def _add_size(parser: ArgumentParser, default: tuple[int, int] | None) -> None:
    parser.add_argument(
        "--size",
        type=tuple[int, int],
        default=default,
        required=default is None,
        metavar="H W",
        help="pixels of a packed image",
    )


def _add_on_error(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--on-error",
        choices=("skip", "stop"),
        default="skip",
        help="what to do with files that cannot be used: leave them out and name them, or end",
    )


def _add_patients(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--patients",
        metavar="PATTERN",
        help="regular expression that finds the patient in a path, e.g. 'sub-(\\d+)': all of a patient go to one split",
    )


def _images(parser: ArgumentParser, size: tuple[int, int] | None = None) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="<class>/* or train|val|test/<class>/*")
    _add_size(parser, size)
    parser.add_argument(
        "--resize",
        choices=("crop", "stretch"),
        default="crop",
        help="crop: shorter side to size, centre cut out; stretch: ignore the aspect",
    )
    _add_on_error(parser)
    _add_patients(parser)
    add_drawing_options(parser)


def _faces(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="directory with yaleB01, yaleB02, ...")
    _add_size(parser, (96, 84))
    parser.add_argument(
        "--split",
        choices=("random", "light"),
        default="random",
        help="random: drawn from each subject; light: train on lights within 35 degrees azimuth, test on the others",
    )
    _add_on_error(parser)
    add_drawing_options(parser)


def _cifar10(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="directory of cifar-10-batches-py, or train|test/<class>/*")
    parser.add_argument("--download", action="store_true", help="fetch the batches into SOURCE where they are missing")
    parser.add_argument("--train-samples", type=int, help="pack only so many training images, of each class alike")
    parser.add_argument("--val-fraction", type=float, default=0.1, help="share of the training images drawn as val")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn splits")


def _volumes(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="<class>/* or train|val|test/<class>/*, or a CSV with columns path,label[,patient][,split]",
    )
    parser.add_argument("--shape", type=tuple[int, int, int], metavar="X Y Z", help="voxels of a packed volume")
    parser.add_argument("--spacing", type=tuple[float, float, float], metavar="X Y Z", help="resample to, in mm")
    parser.add_argument("--window", type=tuple[float, float], metavar="LOW HIGH", help="clip to, e.g. -1000 400 for CT")
    parser.add_argument(
        "--groups",
        type=list[str],
        default=[],
        metavar="A B,C",
        help="each group of classes becomes one class; classes in no group are left out",
    )
    _add_on_error(parser)
    _add_patients(parser)
    parser.add_argument("--allow-shared-patients", action="store_true", help="let a patient be in several splits")
    add_drawing_options(parser)


def _ct(parser: ArgumentParser) -> None:
    _volumes(parser)
    parser.set_defaults(dict(load("ddhpc.data.volumes:CT_DEFAULTS")))


KINDS = {
    "images": Kind(
        description="Pack a folder of images that Pillow reads, of any size.",
        source="ddhpc.data.images:prepare_images",
        add_options=_images,
    ),
    "cifar10": Kind(
        description="Pack CIFAR-10, the original Python batches or class folders.",
        source="ddhpc.data.cifar10:prepare_cifar10",
        add_options=_cifar10,
    ),
    "flowers": Kind(
        description="Pack TF-Flowers, or other photographs in class folders, at 64x64 pixels.",
        source="ddhpc.data.images:prepare_images",
        add_options=partial(_images, size=(64, 64)),
    ),
    "faces": Kind(
        description="Pack the Extended Yale Face Database B as it is distributed.",
        source="ddhpc.data.faces:prepare_faces",
        add_options=_faces,
    ),
    "volumes": Kind(
        description="Pack labelled volumes, NIfTI files or DICOM series.",
        source="ddhpc.data.volumes:prepare_volumes",
        add_options=_volumes,
    ),
    "ct": Kind(
        description="Pack chest CT in the folder layout of MosMedData, CT-0 to CT-4, clipped to -1000..400 HU.",
        source="ddhpc.data.volumes:prepare_volumes",
        add_options=_ct,
    ),
}
