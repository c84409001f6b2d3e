"""`export`: one network for programs that know nothing of ddhpc."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone
from ddhpc.visible import tell
from ddhpc.wording import mebibytes

DESCRIPTION = (
    "Write the model of a finished run as one network, from pixels as they are read to class probabilities: ONNX for "
    "onnxruntime and others, or .pt2 for torch. It is read back and compared with the model. pip install "
    "'ddhpc[export]' brings what ONNX needs."
)


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser("export", DESCRIPTION, "python -m ddhpc export runs/latest --output model.onnx")
    options.add_argument("run", metavar="RUN", help="run directory, its results file, or its directory model")
    options.add_argument("--output", metavar="FILE", required=True, help="FILE.onnx or FILE.pt2")
    options.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    options.add_argument("--coherent", action="store_true", help="the networks of the coherent CNN-DNN")
    options.usage = "%(prog)s RUN --output FILE [options]"
    return options


def run(argv: list[str], started: float) -> None:
    """Write the model of a run as one network."""
    given = parse(arguments(), argv)

    def write() -> None:
        from ddhpc.export import check_export, export
        from ddhpc.results.model import open_model

        form = check_export(Path(given.output), overwrite=given.overwrite)
        model = open_model(Path(given.run))
        done = export(model, form, _data_file(Path(given.run)), coherent=given.coherent)
        tell(
            f"{done.path}: {mebibytes(done.bytes)}; on {done.compared} no probability differs by more than "
            f"{done.deviation:.1e} from that of the model"
        )

    alone(write)


def _data_file(run: Path) -> str:
    """The packed file that a run was trained on; of a model directory, that of the run around it, empty without one."""
    from ddhpc.config import Config
    from ddhpc.errors import InputError
    from ddhpc.results import open_results
    from ddhpc.results.model_directory import DESCRIPTION

    try:
        with open_results(run.parent if (run / DESCRIPTION).is_file() else run) as file:
            return Config.from_yaml(file.attrs["config"]).data.file
    except InputError:
        return ""
