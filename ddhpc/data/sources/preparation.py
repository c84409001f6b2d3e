"""What `prepare` did to the files of a set, as data, so that the same can be done to a file that comes later.

A packed file keeps it as JSON. One rule decides which later files can be used: those with which `prepare`, had they
been among the files of the set, would have done the same to all of them. Others are refused with the reason, never
forced into the stored type.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from ddhpc.errors import InputError

VERSION = 1
"""Of the JSON."""
Kind = Literal["images", "volumes"]


class UnusableFile(InputError):
    """A file that cannot be prepared; the message is `path: reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        """One line."""


class Preparation(ABC):
    """What is done to each file; `ImagePreparation` and `VolumePreparation` are its two kinds.

    Example:
        >>> from ddhpc.data.packed import find, open_packed
        >>> packed = open_packed(find("fashion_mnist.h5"))
        >>> preparation = Preparation.from_json(packed.preparation, packed.path)
        >>> preparation.kind, preparation.channels, preparation.image_shape, preparation.stored_dtype.name
        ('images', 1, (28, 28), 'uint8')
    """

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of a prepared file."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """Of a prepared file, spatial: (height, width) or (x, y, z)."""

    @property
    @abstractmethod
    def stored_dtype(self) -> np.dtype:
        """Of a prepared file."""

    @abstractmethod
    def apply(self, path: Path) -> np.ndarray:
        """The file as `prepare` packs it, [channels, *image_shape] of `stored_dtype`.

        `path` is an image or a volume, which may be the directory of a DICOM series.

        Raises:
            UnusableFile: an InputError with `path` and `reason`, and nothing else, for any file that cannot be used:
                it is missing, unreadable, damaged, of another kind, or one that does not fit among the files of the
                set.
            InputError: a package that reads files of its kind is not installed.
        """

    def to_json(self) -> str:
        """One line, from which `from_json` makes the same."""
        later, values = _later(self), asdict(cast(Any, self))
        values = {name: value for name, value in values.items() if value is not None or name not in later}
        return json.dumps({"version": VERSION, "kind": self.kind, **values}, allow_nan=False)

    @staticmethod
    def from_json(text: str, where: Path | str = "preparation") -> Preparation:
        """What a text of `to_json` describes.

        Args:
            text: as in `Packed.preparation`.
            where: the file or option that it is from, for messages.

        Raises:
            InputError: names `where`, for an empty text, for one of a newer version, and for one with anything
                missing, unknown or of another type.
        """
        kind, found = _read(text, where)
        try:
            preparation: Preparation = _made(_class(kind), found)
            return preparation
        except ValueError as error:
            raise InputError(f"{where}: the preparation of its files {error}; `prepare` it again") from error


def orientation(text: str) -> str | None:
    """Where the sides of a patient come from, see `VolumePreparation`; None of images, and where that is not told.

    Unlike `Preparation.from_json` it needs none of the libraries that read volumes.

    Args:
        text: as in `Packed.preparation`; may be empty.

    Raises:
        InputError: for another text.
    """
    kind, found = _read(text, "preparation") if text else ("images", {})
    return str(found.get("orientation")) if kind == "volumes" else None


def _read(text: str, where: Path | str) -> tuple[Kind, dict[str, Any]]:
    """Kind and values of a text of `to_json`."""
    if not text:
        raise InputError(f"{where}: does not tell how its files were prepared; `prepare` it again")
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: the preparation of its files is no JSON: {because(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: the preparation of its files is {_shown(found)}; expected a JSON object")
    version, kind = found.pop("version", None), found.pop("kind", None)
    if type(version) is not int or not 1 <= version <= VERSION:
        newer = "a newer ddhpc wrote it" if type(version) is int and version > VERSION else "`prepare` it again"
        raise InputError(
            f"{where}: the preparation of its files has version {_shown(version)}; expected {VERSION}; {newer}"
        )
    if kind not in get_args(Kind):
        raise InputError(
            f"{where}: the preparation is of files of kind {_shown(kind)}; expected {' or '.join(get_args(Kind))}"
        )
    return kind, found


def because(error: Exception) -> str:
    """Why a file cannot be used, in one line; on damaged files decoders raise anything."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()) or type(error).__name__


def _class(kind: Kind) -> Any:
    """The class of a kind; the libraries that read volumes are imported for these alone."""
    if kind == "images":
        from ddhpc.data.sources.image_decoding import ImagePreparation

        return ImagePreparation
    from ddhpc.data.sources.volume import VolumePreparation

    return VolumePreparation


def _later(made: Any) -> set[str]:
    """The fields that came later: those with None as their default, which older files lack, and files without one."""
    return {field.name for field in fields(made) if field.default is None}


def _made(made: Any, found: dict[str, Any]) -> Any:
    """An instance of a dataclass of these values; ValueError, a phrase, where they are not those of its fields."""
    hints = get_type_hints(made)
    wanted = {field.name: hints[field.name] for field in fields(made)}
    found = dict.fromkeys(_later(made)) | found
    if missing := next((name for name in wanted if name not in found), None):
        raise ValueError(f"lacks {missing}")
    if unknown := next((name for name in found if name not in wanted), None):
        raise ValueError(f"has an unknown field {_shown(unknown)}")
    return made(**{name: _field(name, found[name], hint) for name, hint in wanted.items()})


def _field(name: str, found: Any, hint: Any) -> Any:
    try:
        return _value(found, hint)
    except TypeError:
        raise ValueError(f"has {name} {_shown(found)}; expected {_described(hint)}") from None


def _value(found: Any, hint: Any) -> Any:
    """A value of JSON as one of this type; TypeError where it is of another one."""
    options, origin = get_args(hint), get_origin(hint)
    if origin in (Union, UnionType):
        (inner,) = (option for option in options if option is not NoneType)
        return None if found is None else _value(found, inner)
    if origin is tuple and isinstance(found, list) and len(found) == len(options):
        return tuple(_value(each, option) for each, option in zip(found, options, strict=True))
    if origin is Literal and isinstance(found, str) and found in options:
        return found
    if is_dataclass(hint) and isinstance(found, dict):
        return _made(hint, found)
    if hint is int and type(found) is int:
        return found
    if hint is float and type(found) in (int, float) and abs(found) <= sys.float_info.max:
        return float(found)
    raise TypeError


def _described(hint: Any) -> str:
    options, origin = get_args(hint), get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join("null" if option is NoneType else _described(option) for option in options)
    if origin is tuple:
        return f"a list of {len(options)} {'whole ' if options[0] is int else ''}numbers"
    if origin is Literal:
        return " or ".join(options)
    if is_dataclass(hint):
        return "a JSON object"
    return "a whole number" if hint is int else "a number"


def _shown(found: object) -> str:
    return repr(found)[:60]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice in it")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
