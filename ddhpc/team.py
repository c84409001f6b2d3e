"""The ranks that train one CNN together, data-parallel: where there are more ranks than subdomains. No MPI.

Each takes its share of every batch; gradients and the statistics of batch normalisation are those of the whole batch,
so that the training is that of one rank up to rounding (torch DistributedDataParallel, arXiv:2006.15704).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ddhpc.decomposition import block


@dataclass(frozen=True, kw_only=True)
class Team:
    """This rank's place in its team; with more than one rank torch's default process group is that of the team."""

    subdomain: int = 0
    """That the team trains; of no meaning where a rank trains alone."""
    rank: int = 0
    size: int = 1

    def share(self, count: int) -> slice:
        """The rows that this rank takes of so many."""
        return slice(*block(count, self.size, self.rank))

    def parallel(self, cnn: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network as it is trained by all ranks; its weights are those of `cnn`, and alike on all ranks.

        The ranks' losses have to add up to `size` times that of the whole batch.
        """
        if self.size == 1:
            return cnn
        _synchronise(cnn)
        with warnings.catch_warnings():
            # torch 2.14 would have forward_sync_buffers here, which 2.5 does not know
            warnings.simplefilter("ignore", FutureWarning)
            spread: Callable[[Tensor], Tensor] = DistributedDataParallel(
                cnn, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        return spread

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, on all of them; collective."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def parts(self, value: Tensor) -> Tensor:
        """The numbers [] that the ranks have, [size], on all of them; collective."""
        every = value.new_zeros(self.size)
        every[self.rank] = value
        return self.total(every)

    def part(self, every: Tensor) -> Tensor:
        """Of `parts` that this rank's, or for another size of the team a share [] such that all add up to their sum."""
        if len(every) == self.size:
            return every[self.rank].clone()
        return every.sum() if self.rank == 0 else torch.zeros_like(every[0])

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set on any rank; collective."""
        if self.size == 1:
            return list(flags)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return [bool(count) for count in self.total(torch.tensor(flags, dtype=torch.int32, device=device)).tolist()]

    @contextmanager
    def own_random(self, device: torch.device, step: int) -> Iterator[None]:
        """Random numbers within are of this rank and step alone, and leave those of the team as they are."""
        if self.size == 1:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, ())) + self.size * step + self.rank)
            yield


ALONE = Team()
"""A rank that trains its subdomains by itself."""


def _synchronise(cnn: nn.Module) -> None:
    """Replace the batch normalisations within by ones that see the whole batch, with the same names and weights."""
    for name, layer in cnn.named_children():
        if not isinstance(layer, _BatchNorm):
            _synchronise(layer)
        elif next(layer.buffers()).is_cuda:
            setattr(cnn, name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))
        elif not isinstance(layer, SynchronisedNorm):
            same = SynchronisedNorm(
                layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
            )
            same.load_state_dict(layer.state_dict())
            setattr(cnn, name, same)


class SynchronisedNorm(_BatchNorm):
    """Batch normalisation by mean and variance of the images of all ranks; torch has it for GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, ...] to the same."""
        if not self.training:
            output: Tensor = super().forward(input)
            return output
        mine = torch.tensor([input.numel() / input.shape[1]], dtype=torch.float64)
        found = torch.batch_norm_update_stats(input.detach().float(), None, None, 0.0)
        mean, variance = (values.double() for values in found)
        sums = torch.cat([mean * mine, (variance + mean.square()) * mine, mine])
        distributed.all_reduce(sums)
        count = sums[-1]
        mean, square = (sums[:-1] / count).chunk(2)
        variance = (square - mean.square()).clamp_(min=0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.float(), weight)
            self.running_var.lerp_((variance * count / (count - 1)).float(), weight)
        normed: Tensor = _Normalise.apply(
            input, self.weight, self.bias, mean.float(), variance.float(), self.eps, float(count)
        )
        return normed


class _Normalise(torch.autograd.Function):
    """Batch normalisation by given statistics of all ranks' images, and its gradient, which these depend on too.

    Ioffe and Szegedy, arXiv:1502.03167, section 3, with sums over all ranks.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, mean, variance, eps, count):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        return torch.nn.functional.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, slope):  # type: ignore[no-untyped-def]
        input, weight, mean, variance = ctx.saved_tensors
        # With the statistics held fixed, then what comes by way of them.
        gradient, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            slope, input, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([of_weight, of_bias]).double()
        distributed.all_reduce(sums)
        by_weight, by_bias = (sums / ctx.count).float().chunk(2)
        inverse = (variance + ctx.eps).rsqrt()
        scale = inverse if weight is None else weight * inverse
        shape = (-1, *[1] * (input.ndim - 2))
        slope_of_input = scale * inverse * by_weight
        constant = scale * by_bias - slope_of_input * mean
        gradient -= input * slope_of_input.view(shape) + constant.view(shape)
        affine = (of_weight, of_bias) if weight is not None else (None, None)
        return gradient, *affine, None, None, None, None
