"""The layers that the families share, written once for images (2D) and volumes (3D)."""

from __future__ import annotations

from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def conv_norm(
    dimensions: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the window (but for the stride), and its batch normalisation.

    The convolution has no bias, since the normalisation that follows would take it away again.
    """
    conv = CONV[dimensions](inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, BATCH_NORM[dimensions](outputs)]


class Residual(nn.Module):
    """The sum of a body, which ends in a batch normalisation, and a shortcut."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """body(x) + shortcut(x), in place of the body's output, which no gradient needs."""
        total: Tensor = self.body(x)
        return total.add_(self.shortcut(x))


class GlobalAveragePool(nn.Module):
    """The mean over the window, so that any window fits the layer that follows."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *window] to [B, C]."""
        return x.flatten(2).mean(2)


def he_init(net: nn.Module) -> nn.Module:
    """Draws all weights from N(0, 2 / fan_in), sets all biases to 0, and returns the network.

    He et al. 2015, arXiv:1502.01852, eq. 10. Batch normalisations keep their weight 1 and bias 0.
    """
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net
