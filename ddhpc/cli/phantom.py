"""`phantom`: write synthetic chest CT."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone, say
from ddhpc.cli.sources import imported
from ddhpc.errors import InputError
from ddhpc.visible import tell


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "phantom ct",
        "Write labelled phantoms of chest CT as NIfTI: synthetic, not patients.",
        "python -m ddhpc phantom ct phantoms --patients 200 --scans 2",
        "python -m ddhpc phantom ct large --patients 60 --shape 384 384 192   # 57 MB each, before gzip",
    )
    options.add_argument("out", metavar="OUT", help="new directory: CT-0, CT-2, CT-3 and labels.csv")
    options.add_argument("--patients", type=int, default=120, help="half of them healthy")
    options.add_argument("--scans", type=int, default=1, help="volumes of each patient: other noise and orientation")
    options.add_argument(
        "--shape",
        type=tuple[int, int, int] | None,
        metavar="N N N",
        help="voxels to the right, to the front (as many) and up; default: about 128x128x52, varying",
    )
    options.add_argument("--seed", type=int, default=0, help="of everything random")
    return options


def run(argv: list[str], started: float) -> None:
    """Write synthetic volumes in the folder layout that `prepare ct` reads."""
    if argv[:1] != ["ct"]:
        say("usage: python -m ddhpc phantom ct OUT [--patients 120] [--scans 1] [--shape N N N] [--seed 0]")
        if argv[:1] not in (["--help"], ["-h"], []):
            raise InputError(f"phantom {argv[0]}: unknown kind; expected ct")
        return
    given = vars(parse(arguments(), argv[1:]))
    write_phantoms = imported("ddhpc.phantoms.ct:write_phantoms")

    from ddhpc.phantoms.ct import prepare_command
    from ddhpc.tables.preparing import progress_of

    def write() -> None:
        with progress_of("phantoms") as progress:
            counts = write_phantoms(**given, progress=progress)
        tell(f"{given['out']}: {', '.join(f'{count} {label}' for label, count in counts.items())} (synthetic phantoms)")
        tell(f"pack them: {prepare_command(given['out'], given['shape'])}")

    alone(write)
