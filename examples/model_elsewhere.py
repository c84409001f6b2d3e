"""Use a trained model in a program that knows nothing of ddhpc: onnxruntime, numpy and Pillow are all it needs.

    python -m ddhpc export runs/own_images/run --output model.onnx        # of the run of examples/own_images.py
    python examples/model_elsewhere.py model.onnx runs/own_images/folders/lying/*.png

The network takes pixels as they are in the file, [B, C, height, width], and gives class probabilities [B, K].
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def read(path: str, channels: int, shape: list[int]) -> np.ndarray:
    """An image as [C, height, width] uint8."""
    image = Image.open(path).convert("L" if channels == 1 else "RGB")
    if [image.height, image.width] != shape:
        raise SystemExit(f"{path}: has {image.height}x{image.width} pixels; expected {shape[0]}x{shape[1]}")
    return np.asarray(image).reshape(*shape, channels).transpose(2, 0, 1)


def main(model: str, *paths: str) -> None:
    """Decide image files."""
    session = onnxruntime.InferenceSession(model)
    about = session.get_modelmeta().custom_metadata_map  # what the file tells of itself
    classes, shape, channels = json.loads(about["classes"]), json.loads(about["image_shape"]), int(about["channels"])
    images = np.stack([read(path, channels, shape) for path in paths])
    (probabilities,) = session.run(["probabilities"], {"images": images})
    for path, row in zip(paths, probabilities, strict=True):
        print(f"{path}: {classes[row.argmax()]} ({row.max():.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
