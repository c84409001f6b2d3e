"""`predict`: apply what was trained to new images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import say
from ddhpc.config import Run
from ddhpc.errors import InputError
from ddhpc.wording import plural

DESCRIPTION = (
    "Apply the model of a finished run to new images: the class of each, and the probability of every class. They are "
    "prepared as `prepare` did it for the training, whose packed file is not needed. Ranks share the inputs out; where "
    "there are fewer inputs than ranks, the subdomains of each. A source that does not exist, or is of "
    "another kind by its name, ends it. Files that are "
    "there and cannot be used are named with the reason and left out; the exit code is 0 where any input was decided, "
    "and 2, with one line, where none was."
)
SOURCE = (
    "an image (.png, .jpg, .tif ...), a volume (.nii.gz, .mha, .nrrd, the directory of a DICOM series), a directory "
    "of any of these, a CSV table with a column path (and label), or a packed file, of which all splits are taken"
)
MAPS = (
    "write which subdomains spoke for each decision: by how much (-1 to 1) the probability of the decided class falls "
    "when what the coarse DNN reads of a subdomain is replaced by its mean over the training images. For an image a "
    "picture NAME_map.png; for a volume NAME_map.nii.gz, float32 on the voxels of the file, with its affine, 0 where "
    "nothing was seen (of a packed file on the packed voxels, with their spacing where it is known, else the "
    "identity). Blocks have no overlap; the coarse image is told in the legend or header. --csv then has all values"
)
MEMORY = (
    "of whole images that a rank holds at once, but one image at least; ranks share the subdomains of larger images"
)


EXAMPLES = (
    "python -m ddhpc predict runs/latest photo.jpg more/ --csv out.csv",
    "mpirun -n 4 python -m ddhpc predict runs/latest scans/ --maps maps",
    "python -m ddhpc predict runs/latest table.csv --labels --calibrated",
)


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser("predict", DESCRIPTION, *EXAMPLES)
    options.usage = "%(prog)s RUN SOURCE... [--csv FILE] [--maps DIR] [--labels] [options]"
    options.add_argument("run", metavar="RUN", help="run directory, its results file, or its directory model")
    options.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCE)
    options.add_argument("--csv", metavar="FILE", help="write a row for each input: id, decision, probability_CLASS...")
    options.add_argument("--maps", metavar="DIR", help=MAPS)
    options.add_argument("--overwrite", action="store_true", help="replace the file of --csv, and maps of these names")
    options.add_argument(
        "--labels",
        action="store_true",
        help="the inputs have labels (a directory for each class, a column of the table, a packed file): tell how good "
        "the decisions are",
    )
    options.add_argument(
        "--coherent", action="store_true", help="decide by the coherent CNN-DNN, where the run has trained it"
    )
    options.add_argument(
        "--calibrated",
        action="store_true",
        help="calibrate the probabilities by the temperature that was fitted on val; the decided classes stay",
    )
    options.add_argument("--memory", type=float, default=1.0, metavar="GIB", help=MEMORY)
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it computes")
    options.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="CPU threads a rank; 0 takes OMP_NUM_THREADS, and without it shares the cores out",
    )
    return options


def given_options(argv: list[str]) -> Any:
    """The options as typed, checked as far as they tell by themselves."""
    given = parse(arguments(), argv)
    if given.memory < 0:
        raise InputError(f"--memory {given.memory}: expected 0 or more GiB")
    if given.threads < 0:
        raise InputError(f"--threads {given.threads}: expected 0 or more threads")
    return given


def run(argv: list[str], started: float) -> None:
    """Predict: the trained method on new images."""
    given = given_options(argv)
    csv = Path(given.csv) if given.csv else None

    from ddhpc.parallel.communicator import world

    comm = world()
    from ddhpc.parallel.placement import place
    from ddhpc.predict import Settings, predict
    from ddhpc.results.model import open_model
    from ddhpc.solver.maps import maps_wanted
    from ddhpc.tables.predictions import check_csv, print_predictions, write_csv

    if csv:
        comm.on_root(partial(check_csv, csv, overwrite=given.overwrite))
    model = comm.together(partial(open_model, Path(given.run)))
    here = comm.together(partial(place, comm, Run(device=given.device, threads=given.threads)))
    maps = None
    if given.maps:
        maps = comm.together(partial(maps_wanted, Path(given.maps), Path(given.run), overwrite=given.overwrite))
    how = {"labels": given.labels, "coherent": given.coherent, "calibrated": given.calibrated}
    settings = Settings(**how, memory=given.memory, maps=maps)
    trained = model.trained
    say(f"{model.folder}: {trained.subdomains} subdomains, {len(trained.classes)} classes; {here.line(comm.size)}")
    found = predict(model, [Path(each) for each in given.sources], comm, here.device, settings)

    def finish() -> None:
        assert found is not None
        if csv:
            write_csv(csv, found)
        print_predictions(found, csv)
        if maps:
            say(f"{maps.folder}: {plural(len(found.ids), 'map')}")

    comm.on_root(finish)
