"""The figures of a run for a notebook."""

from __future__ import annotations

import base64
import html
import io

import h5py

from ddhpc.report.figures.style import drawing
from ddhpc.report.picture import pictures
from ddhpc.report.section import PLAIN, Section
from ddhpc.report.sections import sections
from ddhpc.visible import visible


def figures(file: h5py.File) -> str:
    """The figures of the report with their captions as HTML, each a picture that opens at a click."""
    with drawing():
        return "\n".join(map(_html, sections(file, None, pictures(file), PLAIN)))


def _html(section: Section) -> str:
    if section.figure is None:
        return ""
    stream = io.BytesIO()
    section.figure.savefig(stream, format="png", metadata={"Software": None})
    title, alt, caption = (html.escape(visible(text)) for text in (section.title, section.alt, section.caption))
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f"<details><summary>{title}</summary><figure>"
        f'<img style="max-width: 38rem" alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure></details>"
    )
