"""ddhpc: model-parallel training of image classifiers by domain decomposition."""

from ddhpc.errors import InputError

__version__ = "0.1.0"

__all__ = ["InputError", "__version__"]
