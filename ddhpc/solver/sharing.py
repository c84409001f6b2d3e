"""How ranks share new images: each takes some for itself, or several share the subdomains of the same ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ddhpc.method.applying import Applied, Block, Cut
from ddhpc.method.decomposition import block, owned
from ddhpc.method.trained import Trained
from ddhpc.process import Process
from ddhpc.solver.new_images import Source


class Group:
    """Ranks that decide the same inputs: each applies the local CNNs of some subdomains, and the first one fuses.

    A rank by itself is a group of one. All methods are collective.

    Args:
        ranks: of the group.
        inputs: numbers of those that it decides.
        trained: what decides.
    """

    def __init__(self, ranks: Process, inputs: range, trained: Trained) -> None:
        self.ranks, self.inputs, self.trained = ranks, inputs, trained
        self.shares = [owned(trained.subdomains, ranks.size, rank) for rank in range(ranks.size)]
        """The subdomains of each rank."""
        self.subdomains = self.shares[ranks.rank]
        """Of this rank."""

    def block(self, source: Source, inputs: range) -> tuple[list[int], Block | None, list[str]]:
        """Like `Source.block`: the images on all ranks, the rest on the first.

        A rank reads its own windows where the source has them. Of others the first rank decodes whole images, hands the
        windows out and forgets the rest.
        """
        if source.has_windows or self.ranks.size == 1:
            return source.block(inputs)
        usable, images, wrong = self.ranks.on_root(partial(source.block, inputs)) or ([], None, [])
        (count,) = self.ranks.total(len(usable))
        return usable, self._cut(images, count) if count else None, wrong

    def _cut(self, images: Block | None, count: int) -> Cut:
        """The windows of this rank in `count` images, which the first rank has."""
        trained = self.trained
        shares = [[n for n in share if trained.networks[n].present] for share in self.shares]
        held = {
            n: np.empty(
                (count, trained.channels, *trained.extent(n)),
                np.float32 if trained.sees_coarse_image(n) else trained.dtype,
            )
            for n in shares[self.ranks.rank]
        }

        def give(subdomain: int) -> np.ndarray:
            assert images is not None
            return images.windows(trained, subdomain)

        self.ranks.scatter(give, shares, held)
        return Cut(count=count, held=held)

    def outputs(self, applied: Applied, images: Block, after_each: Callable[[], None]) -> np.ndarray:
        """The local outputs of all subdomains on the first rank, none elsewhere; see `Applied.outputs`."""
        mine = self.ranks.together(partial(applied.outputs, images, self.subdomains, after_each))
        return self.ranks.gather(mine, self.trained.subdomains)


def form_group(comm: Process, inputs: int, trained: Trained, memory: float) -> Group:
    """The group of this rank, which takes consecutive inputs; collective.

    Each rank is a group of one where there are enough inputs for all. Where there are fewer, each input has a group. So
    have images of more than `memory` GiB: of as many ranks as hold that much of one together.
    """
    enough = (ranks for ranks in range(1, trained.subdomains) if trained.image_bytes <= ranks * memory * 2**30)
    groups = max(1, min(inputs, comm.size // next(enough, trained.subdomains)))
    members = [range(*block(comm.size, groups, number)) for number in range(groups)]
    mine = next(number for number, each in enumerate(members) if comm.rank in each)
    return Group(comm.split(mine) if groups < comm.size else Process(), range(*block(inputs, groups, mine)), trained)
