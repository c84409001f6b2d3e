"""Synthetic chest CT from nothing to decisions: phantoms, packed file, 3D decomposition, table of decisions.

    python examples/ct_phantoms.py           # pip install 'ddhpc[ct]' before

Sizes and epochs are so small that it ends within a minute; what so few volumes are decided by says nothing.
"""

import subprocess
import sys
from pathlib import Path

import ddhpc

HOME = Path("runs/ct_phantoms")


def ddhpc_command(words: str) -> None:
    """A verb of the command line."""
    subprocess.run([sys.executable, "-m", "ddhpc", *words.split()], check=True)


def main() -> None:
    """Every step, as in a project with scans of patients."""
    if not (HOME / "ct.h5").exists():
        ddhpc_command(f"phantom ct {HOME}/scans --patients 24")
        ddhpc_command(f"prepare ct {HOME}/scans --output {HOME}/ct.h5 --shape 32 32 16 --groups CT-0 CT-2,CT-3")
    options = {
        "data.file": str(HOME / "ct.h5"),
        "decomposition.grid": [2, 2, 1],
        "decomposition.coarse_image": True,  # one more CNN that sees the whole volume, restricted
        "model.name": "resnet",
        "model.global_width": 8,
        "local.epochs": 2,
        "local.batch_size": 4,
    }
    run = ddhpc.train(ddhpc.Config.from_recipe("ct", options), HOME / "run", overwrite=True)
    decisions, labels = run.decisions("test"), run.labels("test")
    for name, row, label in zip(run.ids("test"), decisions, labels, strict=True):
        print(f"{name}: {run.classes[row.argmax()]} ({row.max():.2f}), in truth {run.classes[label]}")
    alone = run.local_decisions("test").argmax(2) == labels
    print("accuracy of each local CNN alone:", alone.mean(axis=1).round(2).tolist())
    ddhpc_command(f"inspect {HOME}/run --decisions {HOME}/decisions.csv --overwrite")


if __name__ == "__main__":
    main()
