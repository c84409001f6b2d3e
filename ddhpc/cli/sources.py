"""The kinds of raw data that `prepare` packs: their options, and the source that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from ddhpc.errors import InputError

if TYPE_CHECKING:
    from ddhpc.data.sources.source import Packing, Prepared

SOURCES = "ddhpc.data.sources"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of raw data."""

    description: str
    function: str
    """`module:name` of what packs it, called with the source, the options and the packing."""
    options: str
    """`module:name` of the class of its options."""
    source: str
    """What the source is, for the help."""
    example: str
    """A source and options, as they are typed."""
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Of options, where they differ from those of the class."""

    def add_options(self, parser: ArgumentParser) -> None:
        """Offer the source and the options of the kind; imports what reads it, which others need not have."""
        parser.add_argument("source", metavar="SOURCE", help=self.source)
        add_fields(parser, imported(self.options), self.defaults)

    def pack(self, source: str, packing: Packing, **given: Any) -> Prepared | None:
        """Pack a source with these options."""
        prepared: Prepared | None = imported(self.function)(Path(source), imported(self.options)(**given), packing)
        return prepared


def imported(path: str) -> Any:
    """What stands at `module:name`; InputError where a package that it needs is not installed."""
    module, name = path.split(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'ddhpc[ct]' brings what volumes need") from error


def add_fields(parser: ArgumentParser, options: type, defaults: Mapping[str, Any]) -> None:
    """Offer each field of a class of options, see `source.option`: those of the class, then what all sources share."""
    hints, shared = get_type_hints(options), {name for base in options.__mro__[1:] for name in get_annotations(base)}
    for each in sorted(fields(options), key=lambda each: each.name in shared):
        hint, flag = hints[each.name], f"--{each.name.replace('_', '-')}"
        if hint is bool:
            parser.add_argument(flag, action="store_true", help=each.metadata["help"])
            continue
        default = defaults.get(each.name, each.default)
        settings: dict[str, Any] = {"required": True} if default is MISSING else {"default": default}
        if get_origin(hint) is Literal:
            settings["choices"] = get_args(hint)
        else:
            settings["type"] = _without_none(hint)
        if each.metadata["metavar"]:
            settings["metavar"] = each.metadata["metavar"]
        parser.add_argument(flag, help=each.metadata["help"], **settings)


def _without_none(hint: Any) -> Any:
    """The type of an option that may be left out."""
    if get_origin(hint) is UnionType:
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return hint


def add_common_options(parser: ArgumentParser) -> None:
    """Options of every kind."""
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="packed file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing packed file")


IMAGES = "folder with <class>/* or train|val|test/<class>/*"
VOLUMES = "folder with <class>/* or train|val|test/<class>/*, or a CSV with columns path,label[,patient][,split]"

KINDS = {
    "images": Kind(
        description="Pack a folder of images that Pillow reads, of any size.",
        function=f"{SOURCES}.image_folders:prepare_images",
        options=f"{SOURCES}.image_folders:ImageOptions",
        source=IMAGES,
        example="photos --output x.h5 --size 64 64",
    ),
    "cifar10": Kind(
        description="Pack CIFAR-10, the original Python batches or class folders.",
        function=f"{SOURCES}.cifar10:prepare_cifar10",
        options=f"{SOURCES}.cifar10:Cifar10Options",
        source="directory of cifar-10-batches-py, or train|test/<class>/*",
        example="cifar-10-batches-py --output cifar10.h5",
    ),
    "flowers": Kind(
        description="Pack TF-Flowers, or other photographs in class folders, at 64x64 pixels.",
        function=f"{SOURCES}.image_folders:prepare_images",
        options=f"{SOURCES}.image_folders:ImageOptions",
        source=IMAGES,
        example="flower_photos --output flowers.h5",
        defaults={"size": (64, 64)},
    ),
    "faces": Kind(
        description="Pack the Extended Yale Face Database B as it is distributed.",
        function=f"{SOURCES}.faces:prepare_faces",
        options=f"{SOURCES}.faces:FaceOptions",
        source="directory with yaleB01, yaleB02, ...",
        example="CroppedYale --output faces.h5",
    ),
    "volumes": Kind(
        description="Pack labelled volumes: NIfTI, MetaImage, NRRD or DICOM.",
        function=f"{SOURCES}.volumes:prepare_volumes",
        options=f"{SOURCES}.volumes:VolumeOptions",
        source=VOLUMES,
        example="scans.csv --output scans.h5 --shape 128 128 64 --folds 5",
    ),
    "ct": Kind(
        description="Pack chest CT in the folder layout of MosMedData, CT-0 to CT-4, clipped to -1000..400 HU.",
        function=f"{SOURCES}.volumes:prepare_volumes",
        options=f"{SOURCES}.volumes:VolumeOptions",
        source=VOLUMES,
        example="mosmed --output ct.h5 --groups CT-0 CT-2,CT-3",
        defaults={"shape": (128, 128, 64), "window": (-1000.0, 400.0)},
    ),
}
