"""Train on images of your own, and decide new ones.

    python examples/own_images.py

Makes a folder of synthetic images for each of two classes, packs them, trains a CNN on each quarter of every image and
a coarse DNN on their decisions, and decides an image file, all in runs/own_images. Put your own folders in place of
those of `draw`. Real data want several ranks: a script that calls `ddhpc.train` may be started by mpirun, or type
`mpirun -n 4 python -m ddhpc --data.file FILE --decomposition.grid 2 2`.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import ddhpc

HOME = Path("runs/own_images")
OPTIONS = {
    "data.file": str(HOME / "images.h5"),
    "decomposition.grid": [2, 2],  # four subdomains, two along each side of the image
    "local.epochs": 5,
    "local.batch_size": 16,
    "model.global_width": 16,
}


def draw(folder: Path, count: int = 120) -> None:
    """Write a folder of images for each class: bars that lie, bars that stand."""
    rng = np.random.default_rng(0)
    for name in ("lying", "standing"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, at = rng.integers(0, 120, (32, 32)).astype(np.uint8), rng.integers(2, 28)
            pixels[at : at + 3] += 100
            Image.fromarray(pixels if name == "lying" else pixels.T).save(folder / name / f"{number}.png")


def main() -> None:
    """Draw, pack, train, decide."""
    draw(HOME / "folders")
    prepare = f"prepare images {HOME}/folders --size 32 32 --output {HOME}/images.h5 --overwrite"
    subprocess.run([sys.executable, "-m", "ddhpc", *prepare.split()], check=True)
    run = ddhpc.train(ddhpc.Config.from_recipe("fashion_mnist", OPTIONS), HOME / "run", overwrite=True)
    print(run)
    (probabilities,) = run.model().predict([HOME / "folders/standing/0.png"])
    print("standing/0.png:", dict(zip(run.classes, probabilities.round(3).tolist(), strict=True)))


if __name__ == "__main__":
    main()
