"""Which subdomains spoke for a final decision, and where in an image they are. No MPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ddhpc.method.fusions import BLOCK


def drops(decide: Callable[[np.ndarray], np.ndarray], local: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far the probability of the decided class falls when a subdomain says no more than it usually does.

    Occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901)
    at the coarse level: what is covered is the local output of a subdomain, all that the coarse DNN reads of it, and
    what covers it is its mean over the training images, which keeps the input among those that the coarse DNN knows.

    Args:
        decide: the coarse DNN, from local outputs [N, S, W] to final decisions [S, K], each image for itself.
        local: [N, S, W].
        usual: [N, W], mean local outputs over the training images.

    Returns:
        [S, N] float64, from -1 to 1; positive where the subdomain spoke for the decided class, 0 where it is absent.
    """
    subdomains, samples, _ = local.shape
    final = decide(local).astype(np.float64)
    decided = final.argmax(axis=1)
    found = np.empty(samples * subdomains)
    for start in range(0, len(found), BLOCK):
        sample, covered = np.divmod(np.arange(start, min(start + BLOCK, len(found))), subdomains)
        outputs, rows = local[:, sample], np.arange(len(sample))
        outputs[covered, rows] = usual[covered]
        without = decide(outputs).astype(np.float64)
        found[start + rows] = final[sample, decided[sample]] - without[rows, decided[sample]]
    return found.reshape(samples, subdomains)


def spread(values: np.ndarray, sides: Sequence[Sequence[slice]], seen: Sequence[np.ndarray]) -> np.ndarray:
    """A value for each subdomain, laid over the pixels of its block without overlap.

    Args:
        values: [N], of the subdomains of the grid, row-major.
        sides: of the blocks, by dimension of the image that the decomposition cuts, see `decomposition.sides`.
        seen: along each dimension, for every pixel of a second image: that of the first one at its centre, -1 where
            there is none; [size] int64.

    Returns:
        [*sizes] float32 over the second image; 0 where the first one has no pixel.

    Example:
        >>> from ddhpc.method.decomposition import sides
        >>> spread(np.array([1.0, 2.0]), sides((1, 4), (1, 2)), [np.array([0]), np.array([-1, 0, 1, 2, 3])]).tolist()
        [[0.0, 1.0, 1.0, 2.0, 2.0]]
    """
    grid = tuple(map(len, sides))
    padded = np.pad(values.reshape(grid).astype(np.float32), [(0, 1)] * len(grid))
    block_of = []
    for along, places in zip(sides, seen, strict=True):
        owner = np.repeat(np.arange(len(along)), [side.stop - side.start for side in along])
        block_of.append(np.where(places < 0, len(along), owner[places]))
    return np.asarray(padded[np.ix_(*block_of)])
