"""A trained model for programs that know nothing of ddhpc: one network from pixels to probabilities, in one file.

ONNX for onnxruntime and whatever else reads it, .pt2 for torch alone. The file is written beside its final name, read
back, and compared with the model before it gets it.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import ddhpc
from ddhpc.data.hdf5 import check_output, reason, replace
from ddhpc.data.packed import find, open_packed
from ddhpc.errors import InputError
from ddhpc.method.decomposition import whole
from ddhpc.method.trained import Trained
from ddhpc.results.model import Model

MOST_DEVIATION = 1e-4
"""Of a probability, between the model and the exported network. Sums in another order gave up to 5e-6."""
MOST_IMAGES, MOST_BYTES = 64, 2**28
"""That both are compared on; one at least."""
INPUT, OUTPUT = "images", "probabilities"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    bytes: int
    deviation: float
    """Largest difference of a probability from that of the model."""
    compared: str
    """On what, for a person."""


class Format(ABC):
    """How a network is written and read back."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_needs(self) -> None:
        """InputError where a package is not installed; imports them."""
        try:
            for name in self.needs:
                import_module(name)
        except ImportError as error:
            raise InputError(
                f"--output {self.path}: needs {', '.join(self.needs)} ({error}); expected them: "
                "pip install 'ddhpc[export]'"
            ) from error

    @abstractmethod
    def write(self, network: nn.Module, example: Tensor, about: dict[str, str], part: Path) -> None:
        """Write a network that takes images like the example, any number of them, to the path `part`."""

    @abstractmethod
    def outputs(self, part: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
        """What the network in a file gives for images [B, C, *spatial]: probabilities [B, K]."""


class Onnx(Format):
    """ONNX, computed by onnxruntime."""

    needs = ("onnx", "onnxscript", "onnxruntime")

    def write(self, network: nn.Module, example: Tensor, about: dict[str, str], part: Path) -> None:
        """See `Format`."""
        shapes = {INPUT: {0: torch.export.Dim("batch")}}
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(about)
        program.save(part, external_data=False)

    def outputs(self, part: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
        """See `Format`."""
        import onnx
        import onnxruntime

        onnx.checker.check_model(part)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(part, options, providers=["CPUExecutionProvider"])
        return [np.asarray(session.run([OUTPUT], {INPUT: batch})[0]) for batch in batches]


class Pt2(Format):
    """A program of `torch.export`."""

    def write(self, network: nn.Module, example: Tensor, about: dict[str, str], part: Path) -> None:
        """See `Format`."""
        shapes = {INPUT: {0: torch.export.Dim("batch")}}
        program = torch.export.export(network, (example,), dynamic_shapes=shapes)
        data = io.BytesIO()  # what the file system refuses is then an OSError
        torch.export.save(program, data, extra_files={f"ddhpc_{name}": value for name, value in about.items()})
        part.write_bytes(data.getbuffer())

    def outputs(self, part: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
        """See `Format`."""
        network = torch.export.load(part).module()
        with torch.inference_mode():
            return [network(torch.from_numpy(batch)).numpy() for batch in batches]


FORMATS: dict[str, type[Format]] = {".onnx": Onnx, ".pt2": Pt2}


def check_export(path: Path, *, overwrite: bool) -> Format:
    """How a path is written, by its ending; InputError, naming --output, where it cannot be."""
    kind = FORMATS.get(path.suffix)
    if kind is None:
        raise InputError(f"--output {path}: expected a name that ends in {' or '.join(FORMATS)}")
    check_output(path, overwrite=overwrite)
    chosen = kind(path)
    chosen.check_needs()
    return chosen


def export(model: Model, form: Format, data_file: str, *, coherent: bool = False) -> Exported:
    """Write a trained model as one network from pixels as they are read to class probabilities.

    It takes images [B, C, *spatial] of the type of the packed file, any number of them, and gives [B, K] float32. The
    file tells its classes, channels, shape and type: as `metadata_props` in ONNX, as extra files `ddhpc_NAME` in .pt2.

    Args:
        model: see `results.model.open_model`.
        form: see `check_export`.
        data_file: packed file of the training; where it is found and the same, its val images are compared on.
        coherent: whether the networks of the coherent CNN-DNN are written.

    Raises:
        InputError: the network cannot be exported, gives other probabilities afterwards, or cannot be written.
    """
    trained, path = model.trained, form.path
    if coherent and not trained.coherent:
        raise InputError("--coherent: the run has not trained the coherent CNN-DNN; expected one with --coherent.start")
    network = model.cnn_dnn(coherent=coherent).eval()
    images, compared = _images(model, data_file)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        with _plain(path), _quiet(), torch.no_grad():
            form.write(network, torch.from_numpy(np.concatenate([images[:1]] * 2)), _about(model, coherent), part)
            batches = [images[:1], images]
            found = form.outputs(part, batches)
        with torch.inference_mode():
            expected = [network(torch.from_numpy(batch)).numpy() for batch in batches]
        deviation = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        if not deviation <= MOST_DEVIATION:
            raise InputError(
                f"--output {path}: the exported network differs by {deviation:.1e} from the model on {compared}; "
                f"expected at most {MOST_DEVIATION:.0e}"
            )
        try:
            replace(part, path)
        except OSError as error:
            raise InputError(f"--output {path}: cannot be written: {reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return Exported(path=path, bytes=path.stat().st_size, deviation=deviation, compared=compared)


def _about(model: Model, coherent: bool) -> dict[str, str]:
    """What a program needs to know that has the file alone, texts by name; lists are JSON."""
    trained = model.trained
    return {
        "ddhpc_version": ddhpc.__version__,
        "classes": json.dumps(trained.classes, ensure_ascii=False),
        "channels": str(trained.channels),
        "image_shape": json.dumps(trained.image_shape),
        "dtype": trained.dtype,
        "decided_by": "coherent" if coherent else "dnn",
        "preparation": trained.preparation,
        "run": model.about["run"],
    }


def _images(model: Model, data_file: str) -> tuple[np.ndarray, str]:
    """Images [B, C, *spatial] to compare on, of val where the packed file is there, and what they are."""
    trained = model.trained
    size = np.dtype(trained.dtype).itemsize * trained.channels * prod(trained.image_shape)
    most = max(1, min(MOST_IMAGES, MOST_BYTES // size))
    try:
        packed = open_packed(find(data_file))
        if packed.digest == model.about["data_digest"]:
            images = packed.read("val", whole(trained.image_shape), slice(0, most))
            return images, f"{len(images)} val images"
    except InputError:
        pass
    return _random_images(trained, most), f"{most} random images"


def _random_images(trained: Trained, count: int) -> np.ndarray:
    """Noise with the mean and standard deviation of the training images, within what their type can hold."""
    ones = [1] * len(trained.image_shape)
    mean, std = (np.reshape(values, (1, -1, *ones)) for values in (trained.mean, trained.std))
    images = mean + std * np.random.default_rng(0).standard_normal((count, trained.channels, *trained.image_shape))
    dtype = np.dtype(trained.dtype)
    if dtype.kind != "f":
        images = images.round().clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return images.astype(dtype)


@contextmanager
def _plain(path: Path) -> Iterator[None]:
    """Turn what torch and onnxruntime raise, which may be anything of many lines, into one."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {reason(error)}") from error
    except Exception as error:
        told = next((line.strip() for line in _innermost(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"--output {path}: the network of this run cannot be exported: {told}") from error


def _innermost(error: BaseException) -> str:
    """The message of the error that the others came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch and onnxscript say of their work."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
