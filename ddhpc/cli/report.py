"""`report`: write the page of a run."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone
from ddhpc.report import check_needs
from ddhpc.visible import tell


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "report",
        "Write one HTML page with the figures of a run, and the figures as PNG and SVG.",
        "python -m ddhpc report runs/latest --baseline runs/global --ablation",
    )
    options.add_argument("run", metavar="RUN", help="run directory or results file")
    options.add_argument("--baseline", metavar="RUN", help="run of the global CNN on the same data, to compare with")
    options.add_argument(
        "--ablation",
        action="store_true",
        help="show what each input of the second level brought: solves the coarse DNN again, in seconds",
    )
    options.add_argument(
        "--positive", metavar="CLASS", help="class that counts as positive in the metrics (default: the last of two)"
    )
    options.add_argument(
        "--pool",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of all folds of a cross-validation, RUN among them: show their decisions together",
    )
    options.add_argument("--output", metavar="DIR", help="directory of the page (default: report in the run directory)")
    return options


def run(argv: list[str], started: float) -> None:
    """Write one HTML page with the figures of a run."""
    given = parse(arguments(), argv)
    check_needs()

    from ddhpc.report.page import write_report
    from ddhpc.report.section import Asked

    baseline, output = (Path(path) if path else None for path in (given.baseline, given.output))
    asked = Asked(ablation=given.ablation, positive=given.positive, pool=[Path(path) for path in given.pool])
    alone(lambda: tell(str(write_report(Path(given.run), baseline, output, asked))))
