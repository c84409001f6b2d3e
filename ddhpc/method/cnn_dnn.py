"""The trained CNN-DNN as one network: whole images in, final decisions out. No MPI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ddhpc.data.packed.pyramid import boxes
from ddhpc.errors import InputError
from ddhpc.method.coarse_images import level_of
from ddhpc.method.trained import Trained
from ddhpc.models.features import exposing


class Restriction(nn.Module):
    """Whole images [B, C, *spatial] to the coarse image [B, C, *shape] float32, see `coarse_images.coarse_image`.

    Args:
        image_shape: spatial.
        shape: of the coarse image.
        rounded: whether the level of the pyramid in between is rounded, as that of integers is.
    """

    def __init__(self, image_shape: tuple[int, ...], shape: tuple[int, ...], rounded: bool) -> None:
        super().__init__()
        size = level_of(image_shape, shape)
        self.shapes = [image_shape, *([size] if size else []), shape]
        self.rounded = rounded
        for step, (before, after) in enumerate(zip(self.shapes[:-1], self.shapes[1:], strict=True)):
            for axis, (edge, parts) in enumerate(zip(before, after, strict=True)):
                pixels, weights = boxes(edge, parts)
                self.register_buffer(f"pixels_{step}_{axis}", torch.from_numpy(pixels), persistent=False)
                self.register_buffer(f"weights_{step}_{axis}", torch.from_numpy(weights), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Means over boxes, in float64, summed in the order of `pyramid.restrict`, whose bits they have."""
        steps, dimensions = len(self.shapes) - 1, len(self.shapes[0])
        for step in range(steps):
            x = x.double()
            for axis in range(dimensions):
                found, weights = (self.get_buffer(f"{name}_{step}_{axis}") for name in ("pixels", "weights"))
                along = (-1, *[1] * (dimensions - 1 - axis))
                parts = [
                    x.index_select(axis + 2, found[place]) * weights[place].reshape(along)
                    for place in range(len(found))
                ]
                x = parts[0]
                for part in parts[1:]:
                    x = x + part
            x = x.float()
            if self.rounded and step < steps - 1:
                x = x.round()
        return x


class CnnDnn(nn.Module):
    """Local CNNs and coarse DNN as one network, which holds all of them.

    It computes in float32 what the training computes subdomain by subdomain, and can be exported: constants, slices,
    convolutions and dense layers are all that it is made of. With a grid of ones it is the global CNN alone.

    Args:
        trained: what the model is.
        local: the local CNN of each subdomain, None where it is absent.
        coarse: the coarse DNN, None where a single subdomain decides alone.

    Raises:
        ValueError: the features of a local CNN cannot be told.

    Example:
        >>> from ddhpc.config import Config, Decomposition
        >>> from ddhpc.method.problem import open_problem
        >>> from ddhpc.method.trained import trained
        >>> problem = open_problem(Config(decomposition=Decomposition(grid=(1, 1))))
        >>> cnn_dnn = CnnDnn(trained(problem, np.array([True])), [problem.local_cnn(0)], None)
        >>> cnn_dnn(torch.zeros((2, 1, 28, 28), dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: Trained, local: Sequence[nn.Module | None], coarse: nn.Module | None) -> None:
        super().__init__()
        self.trained, self.coarse = trained, coarse
        self.local = nn.ModuleDict({str(n): self._exposing(n, cnn) for n, cnn in enumerate(local) if cnn is not None})
        ones = [1] * len(trained.image_shape)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(trained, name), dtype=torch.float32).reshape(-1, *ones)
            self.register_buffer(name, values, persistent=False)
        self.restriction = None
        if trained.coarse_shape is not None:
            rounded = np.dtype(trained.dtype).kind != "f"
            self.restriction = Restriction(trained.image_shape, trained.coarse_shape, rounded)
        self.eval()

    def _exposing(self, subdomain: int, cnn: nn.Module) -> nn.Module:
        shape = (1, self.trained.channels, *self.trained.extent(subdomain))
        return exposing(cnn.eval(), shape) if self.trained.features else cnn.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Whole images [B, C, *spatial] in stored units, any real dtype, to final decisions [B, K] float32."""
        outputs = self.local_outputs(images)
        if self.coarse is None:
            return outputs[0]
        logits: Tensor = self.coarse(torch.cat(outputs, 1))
        return logits.softmax(1)

    def predict(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Final decisions [n, K] float32 for files, each prepared as those of the training were, and alone.

        Raises:
            InputError: a file cannot be used, or the training does not tell how its files were prepared.
        """
        from ddhpc.data.sources.preparation import Preparation

        if not self.trained.preparation:
            raise InputError(
                "the packed file of the training does not tell how its images were prepared; expected one that this "
                "version's `prepare` has made"
            )
        preparation = Preparation.from_json(self.trained.preparation, "the model")
        found = [np.zeros((0, len(self.trained.classes)), np.float32)]
        with torch.inference_mode():
            for path in paths:
                pixels = torch.tensor(preparation.apply(Path(path))[None], device=self.mean.device)
                found.append(self(pixels).cpu().numpy())
        return np.concatenate(found)

    def local_outputs(self, images: Tensor) -> list[Tensor]:
        """Local outputs [B, K + F] float32 of each subdomain, zeros where it is absent."""
        trained, classes = self.trained, len(self.trained.classes)
        coarse = None if self.restriction is None else (self.restriction(images) - self.mean) / self.std
        normal = (images.float() - self.mean) / self.std
        outputs = []
        for n in range(trained.subdomains):
            if str(n) not in self.local:
                outputs.append(normal.new_zeros(normal.shape[0], classes + trained.features))
                continue
            source = coarse if coarse is not None and trained.sees_coarse_image(n) else normal
            made = self.local[str(n)](source[(slice(None), slice(None), *trained.window(n))])
            decision, features = made[:, :classes].softmax(1), made[:, classes:]
            outputs.append(pad(torch.cat([decision, features], 1), (0, trained.features - features.shape[1])))
        return outputs
