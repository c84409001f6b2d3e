"""The report of a run: one HTML page that needs nothing else, and its figures as PNG and SVG beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import h5py
from jinja2 import Environment, StrictUndefined

from ddhpc.config import Config
from ddhpc.data.hdf5 import replace
from ddhpc.errors import InputError
from ddhpc.report import FOLDER, GENERATOR, PAGE
from ddhpc.report.figures.style import drawing
from ddhpc.report.picture import pictures
from ddhpc.report.section import PLAIN, Asked, Section
from ddhpc.report.sections import sections
from ddhpc.report.summary import facts, main_figures, summary
from ddhpc.results import file_system, open_results, verify
from ddhpc.results.cost import check_baseline
from ddhpc.visible import visible
from ddhpc.wording import by


def write_report(run: Path, baseline: Path | None, output: Path | None, asked: Asked = PLAIN) -> Path:
    """Write the report of a run and give the path of its page.

    Args:
        run: run directory or results file.
        baseline: that of the global CNN on the same data.
        output: directory of the report; None for `report` in the run directory.
        asked: what else to show.

    Raises:
        InputError: a results file is not whole, the baseline is of other data, there is nothing to solve again, or the
            output cannot be written.
    """
    directory = output or (run if run.is_dir() else run.parent) / FOLDER
    page = directory / PAGE
    if page.exists() and GENERATOR not in page.read_text(errors="replace"):
        raise InputError(f"--output {directory}: holds an {PAGE} that is no report; expected another directory")
    with ExitStack() as stack, drawing():
        file = stack.enter_context(_whole(run))
        other = stack.enter_context(_whole(baseline)) if baseline else None
        if baseline and other is not None:
            check_baseline(file, other, baseline)
        _check_pool(run, asked.pool)
        found = sections(file, other, pictures(file), asked)
        with file_system(directory):
            directory.mkdir(parents=True, exist_ok=True)
            images = {section.name: _save(section, directory) for section in found}
            part = page.with_suffix(".part")
            part.write_text(_html(run, file, other, found, images), encoding="utf-8")
            replace(part, page)
    return page


def _check_pool(run: Path, runs: Sequence[Path]) -> None:
    """InputError unless runs that are pooled are whole and the run of the page is one of them."""
    for each in runs:
        _whole(each).close()
    if runs and run.resolve() not in [each.resolve() for each in runs]:
        raise InputError(
            f"--pool: {run} is not among {', '.join(map(str, runs))}; expected the run of the page as well"
        )


def _whole(run: Path) -> h5py.File:
    """The results file of a run, open; InputError if it is not whole."""
    if problems := verify(run):
        raise InputError(f"{run}: the results file is damaged: {'; '.join(problems)}")
    return open_results(run)


def _save(section: Section, directory: Path) -> str:
    """Save a figure as PNG and SVG, and give the PNG as a data URL; remove one that an earlier report left."""
    png, svg = (directory / f"{section.name}.{suffix}" for suffix in ("png", "svg"))
    if section.figure is None:
        for path in (png, svg):
            path.unlink(missing_ok=True)
        return ""
    stream = io.BytesIO()
    section.figure.savefig(stream, format="png", metadata={"Software": None})
    png.write_bytes(stream.getvalue())
    section.figure.set_layout_engine("none")  # the first drawing has laid it out
    section.figure.savefig(svg, metadata={"Date": None})
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _html(run: Path, file: h5py.File, baseline: h5py.File | None, found: list[Section], images: dict[str, str]) -> str:
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    )
    template = environment.from_string((files("ddhpc.report") / "page.html").read_text())
    config = Config.from_yaml(file.attrs["config"])
    return template.render(
        title=f"{Path(config.data.file).stem}, {by(config.decomposition.grid)}",
        run=run.resolve().name if run.is_dir() else str(run),
        created=file.attrs["created"],
        figures=main_figures(file, baseline),
        summary=summary(file, baseline),
        sections=found,
        images=images,
        facts=facts(file),
        config=file.attrs["config"],
    )
