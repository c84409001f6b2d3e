"""Batch normalisation over the images of all ranks of a team, on CPUs too.

Ioffe and Szegedy, arXiv:1502.03167, with mean and variance of the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise(cnn: nn.Module) -> None:
    """Replace the batch normalisations within by ones that see the whole batch, with the same names and weights."""
    for name, layer in cnn.named_children():
        if not isinstance(layer, _BatchNorm):
            synchronise(layer)
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
