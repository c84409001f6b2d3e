"""Lays out the pages for the site, see zensical.toml: the documents as they are, what they link to, and the interface.

Formulas become MathML, which browsers show by themselves. Directories that are linked to become lists of their files.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path

from latex2mathml.converter import convert

import ddhpc

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/*.md", "data/*.md", "slurm/*.md", "benchmarks/*.md")
LINK = re.compile(r"\]\((?!http|#)([^)#]+)")
SECTIONS = re.compile(r"^(?=(?:Args|Returns|Raises|Example):$)", re.M)
"""Where those of a docstring begin."""
WIDE = ".md-grid { max-width: 84rem; }"
"""Lines of commands fit."""
FORMULA = re.compile(r"\$`(.+?)`\$")


def lay_out(target: Path) -> None:
    """Write all pages to an empty directory."""
    for page in sorted(file for pattern in PAGES for file in ROOT.glob(pattern)):
        text = page.read_text()
        for link in LINK.findall(text):
            _bring((page.parent / link).resolve().relative_to(ROOT), target)
        copy = target / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(FORMULA.sub(lambda found: f"<span>{convert(found[1])}</span>", text))
    (target / "docs/interface.md").write_text(interface())
    (target / "wide.css").write_text(WIDE)


def _bring(linked: Path, target: Path) -> None:
    """What a page links to and is no page: a file, or a directory with an index."""
    source, copy = ROOT / linked, target / linked
    if source.is_file() and source.suffix != ".md":
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    elif source.is_dir():
        files = sorted(file.name for file in source.iterdir() if file.is_file())
        for name in files:
            _bring(linked / name, target)
        rows = "\n".join(f"- [{name}]({name})" for name in files)
        (copy / "index.md").write_text(f"# {linked}\n\n{rows}\n")


def interface() -> str:
    """The page of the public names: signatures and docstrings."""
    parts = ["# Python interface", "As `help` shows it; [examples](python.md)."]
    for name in ddhpc.__all__:
        member = getattr(ddhpc, name)
        if callable(member):
            parts += _described(name, member)
            if inspect.isclass(member):
                own = (each for each in vars(member) if not each.startswith("_"))
                for each in own:
                    if inspect.isroutine(found := getattr(member, each)):
                        parts += _described(f"{name}.{each}", found)
    return "\n\n".join(parts) + "\n"


def _described(name: str, member: object) -> list[str]:
    """Heading, signature and docstring, of which the sections keep their form."""
    said, *sections = SECTIONS.split(inspect.getdoc(member) or "")
    parts = [f"## {name}", said.strip()]
    if inspect.isroutine(member):
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(member)))
        parts.insert(1, f"```python\n{name}{signature}\n```")
    return parts + [f"```text\n{section.strip()}\n```" for section in sections]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    lay_out(folder)
