"""The trained model of a run: its description as JSON, and its networks with their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import ddhpc
from ddhpc.config import BEFORE, Coarse
from ddhpc.data.hdf5 import attribute, decoded, reason
from ddhpc.data.packed.checks import DTYPES
from ddhpc.errors import InputError
from ddhpc.method.decomposition import bounds, whole, windows
from ddhpc.method.trained import Network, Trained
from ddhpc.results.identity import git_commit
from ddhpc.results.model_directory import (
    DESCRIPTION,
    MODEL,
    MODEL_FORMAT,
    MODEL_VERSION,
    files_of,
    network_file,
    read_description,
)
from ddhpc.results.reader import open_results
from ddhpc.results.run_directory import FILE
from ddhpc.yaml_file import fits, with_tuples

if TYPE_CHECKING:
    from torch import nn

    from ddhpc.method.cnn_dnn import CnnDnn
    from ddhpc.models.dnn import Dnn

ABOUT = ("data_digest", "run")
HINTS = get_type_hints(Trained)
CUT = ("grid", "overlap", "balance", "coarse_shape")
"""Fields of `Trained` that section `decomposition` of the description holds."""
TEMPERATURES = ("temperature", "coherent_temperature")
"""Fields that descriptions of before lack."""
PLAIN = tuple(name for name in HINTS if name not in (*CUT, "decomposition", "networks", "coarse"))
"""Fields of `Trained` that the description holds as they are."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model on the disk; no network is in memory.

    Example::

        model = open_model(Path("runs/latest"))
        model.trained.classes                            # ("T-shirt/top", "Trouser", ...)
        model.cnn_dnn()(torch.zeros(1, 1, 28, 28))       # [1, 10] float32, class probabilities
    """

    folder: Path
    """That holds its files."""
    trained: Trained
    files: Mapping[str, str]
    """SHA-256 of each file but the description, by name."""
    about: Mapping[str, str]
    """Of the run: `data_digest` of its packed file, and `run`, its fingerprint."""

    def local_cnn(self, subdomain: int, *, coherent: bool = False) -> nn.Module | None:
        """The local CNN of a subdomain, on the CPU, for evaluation; None where it is absent.

        Args:
            subdomain: its number.
            coherent: that of the coherent CNN-DNN.

        Raises:
            InputError: its file is missing or damaged, or the network cannot be built here.
        """
        if not self.trained.networks[subdomain].present:
            return None
        cnn = self.trained.local_cnn(subdomain)
        self.load(cnn, subdomain, coherent=coherent)
        return cnn

    def coarse_dnn(self, *, coherent: bool = False) -> Dnn | None:
        """The coarse DNN, as `local_cnn`; None where a single subdomain decides alone."""
        if self.trained.coarse is None:
            return None
        network = self.trained.coarse_dnn()
        self.load(network, None, coherent=coherent)
        return network

    def cnn_dnn(self, *, coherent: bool = False) -> CnnDnn:
        """All networks as one, from whole images to final decisions, on the CPU; InputError as `local_cnn`."""
        from ddhpc.method.cnn_dnn import CnnDnn

        local = [self.local_cnn(n, coherent=coherent) for n in range(self.trained.subdomains)]
        try:
            return CnnDnn(self.trained, local, self.coarse_dnn(coherent=coherent))
        except ValueError as error:
            raise InputError(f"{self.folder}: cannot be made one network: {error}") from error

    def load(self, network: nn.Module, subdomain: int | None, *, coherent: bool = False) -> None:
        """Set the weights of a network of the right kind to those of a subdomain, of the coarse DNN for None."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        name = network_file(subdomain, coherent=coherent)
        path = self.folder / name
        try:
            if not path.is_file():
                raise ValueError("is missing")
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.files.get(name):
                raise ValueError("damaged, its checksum differs")
            network.load_state_dict(load(data))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{path}: {reason(error)}; expected the file that the training has kept") from error


def open_model(run: Path) -> Model:
    """The trained model of a finished run.

    Args:
        run: run directory or its results file; or a model directory alone.

    Raises:
        InputError: there is no finished run, it was made before models were kept, or the model is damaged.
    """
    if (run / DESCRIPTION).is_file():
        return _opened(run, None)
    with open_results(run) as file:
        digest = attribute(file, "model_sha256", str)
    if digest is None:
        raise InputError(
            f"{run}: was made before models were kept, or without one; expected a run of this version: train it again"
        )
    folder = (run if run.is_dir() else run.parent) / MODEL
    if not folder.is_dir():
        raise InputError(f"{folder}: is missing; expected the model of the run, which the training has kept there")
    return _opened(folder, digest)


def training_ids(model: Model) -> frozenset[str]:
    """Ids of the training images, by the results file beside the model; none where that is missing or damaged."""
    folder = model.folder.resolve()
    if folder.name != MODEL or not (folder.parent / FILE).exists():
        return frozenset()
    try:
        with open_results(folder.parent) as file:
            return frozenset(decoded(file["samples/train/id"]))
    except InputError:
        return frozenset()  # damaged: the model is whole without it


def _opened(folder: Path, digest: str | None) -> Model:
    path = folder / DESCRIPTION
    try:
        data = read_description(folder)
        if digest not in (None, hashlib.sha256(data).hexdigest()):
            raise ValueError("is not that of the results file, its checksum differs")
        description = json.loads(data)
        about = {name: str(description[name]) for name in ABOUT}
        return Model(
            folder=folder,
            trained=from_dict(description),
            files=files_of(description),
            about=about,
        )
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{path}: {what}; expected the model of a finished run") from error


def to_dict(trained: Trained, files: Mapping[str, str], about: Mapping[str, str]) -> dict[str, Any]:
    """The content of `model.json`.

    Args:
        trained: what the model is.
        files: SHA-256 of each file, by name.
        about: what else it tells, such as the digest of the training data.
    """
    lower, upper = bounds(trained.decomposition)
    return {
        "format": MODEL_FORMAT,
        "format_version": MODEL_VERSION,
        "ddhpc_version": ddhpc.__version__,
        "git_commit": git_commit(),
        **about,
        **{name: getattr(trained, name) for name in ("classes", "channels", "image_shape", "dtype", "mean", "std")},
        "precision": trained.precision,
        "decomposition": {
            "grid": trained.grid,
            "overlap": trained.overlap,
            "balance": trained.balance,
            "lower": lower.tolist(),
            "upper": upper.tolist(),
            "coarse_shape": trained.coarse_shape,
        },
        "subdomains": [{**asdict(network), "extent": trained.extent(n)} for n, network in enumerate(trained.networks)],
        "features": trained.features,
        "coarse": asdict(trained.coarse) if trained.coarse else None,
        "coherent": trained.coherent,
        **{name: getattr(trained, name) for name in TEMPERATURES},
        "preparation": trained.preparation,
        "files": dict(files),
    }


def from_dict(found: Any) -> Trained:
    """What `to_dict` was given; ValueError, KeyError, TypeError or AttributeError where it does not fit together."""
    files_of(found)
    version, cut = found["format_version"], {**BEFORE["decomposition"], **found["decomposition"]}
    if type(version) is not int or not 1 <= version <= MODEL_VERSION:
        raise ValueError(f"has format version {str(version)[:20]}, expected {MODEL_VERSION}")
    plain = _checked({**dict.fromkeys(TEMPERATURES), **found}, PLAIN) | _checked(cut, CUT)
    networks = tuple(_section(Network, each, apart=("extent",)) for each in found["subdomains"])
    coarse = _section(Coarse, {**BEFORE["coarse"], **found["coarse"]}) if found["coarse"] is not None else None
    if not _consistent(plain, len(networks), coarse is not None):
        raise ValueError("has sizes, statistics and networks that do not fit together")
    decomposition = windows(plain["image_shape"], plain["grid"], plain["overlap"], plain["balance"])
    if plain["coarse_shape"] is not None:
        decomposition.append(whole(plain["image_shape"]))
    lower, upper = bounds(decomposition)
    if [lower.tolist(), upper.tolist()] != [cut["lower"], cut["upper"]]:
        raise ValueError("has windows that are not those of its grid")
    return Trained(**plain, decomposition=decomposition, networks=networks, coarse=coarse)


def _checked(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Values of fields of `Trained`; ValueError where one is of another type."""
    for name in names:
        if not fits(found[name], HINTS[name]):
            raise ValueError(f"has {name} {str(found[name])[:60]}")
    return with_tuples({name: found[name] for name in names})


def _consistent(plain: Mapping[str, Any], networks: int, coarse: bool) -> bool:
    shape, channels, coarse_shape = plain["image_shape"], plain["channels"], plain["coarse_shape"]
    subdomains = prod(plain["grid"]) + (coarse_shape is not None)
    return (
        len(shape) in (2, 3)
        and len(plain["classes"]) >= 2
        and plain["dtype"] in DTYPES
        and plain["features"] >= 0
        and len(plain["mean"]) == len(plain["std"]) == channels >= 1
        and min(plain["std"]) > 0
        and all(plain[name] is None or 0 < plain[name] < inf for name in TEMPERATURES)
        and subdomains == networks
        and coarse == (networks > 1)
        and (
            coarse_shape is None
            or (len(coarse_shape) == len(shape) and all(1 <= a <= b for a, b in zip(coarse_shape, shape, strict=True)))
        )
    )


def _section(kind: type, found: Mapping[str, Any], apart: tuple[str, ...] = ()) -> Any:
    """A dataclass of plain values; ValueError where they are not those of its fields."""
    hints = get_type_hints(kind)
    given = {name: value for name, value in found.items() if name not in apart}
    if set(given) != set(hints) or not all(fits(value, hints[name]) for name, value in given.items()):
        raise ValueError(f"has a {kind.__name__.lower()} {str(dict(found))[:60]}, which this version has not")
    return kind(**with_tuples(given))


def with_coarse(model: Model, coarse: Coarse, features: int, temperature: float | None) -> Trained:
    """What a model is whose second level is solved again."""
    return replace(
        model.trained,
        coarse=coarse,
        features=features,
        temperature=temperature,
        coherent=False,
        coherent_temperature=None,
    )
