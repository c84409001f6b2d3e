"""All sections of a training together, from and to YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import yaml

from ddhpc.config.checks import require
from ddhpc.config.problem import Data, Decomposition, Model
from ddhpc.config.run import Run
from ddhpc.config.training import Coarse, Coherent, Local
from ddhpc.recipes import recipe
from ddhpc.settings import from_options
from ddhpc.yaml_file import fits, plain_values, with_lists, with_tuples

CODE = ("ddhpc_version", "git_commit")
IDENTITY = ("data_digest", *CODE)
"""What stands beside the sections where a run keeps all that its results depend on, in `run.yaml`."""
DIGESTS = ("data_digest", "weights_digest")
"""What stands there of files; the second only where a run starts from known weights."""
NATURAL = {"class_weight": "none", "sampling": "natural"}
BEFORE: dict[str, dict[str, Any]] = {
    "data": {"fold": None},
    "decomposition": {"balance": "blocks"},
    "local": {
        **NATURAL,
        **{"validate_every": None, "keep": "last", "patience": None},
        **{"optimizer": "sgd", "warmup": "auto", "clip": None},
    },
    "coarse": {**NATURAL, "keep": "last", "patience": None},
}
"""Options that runs of older versions lack, and the values that say what those did."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """All sections of a training."""

    data: Data = field(default_factory=Data)
    decomposition: Decomposition = field(default_factory=Decomposition)
    model: Model = field(default_factory=Model)
    local: Local = field(default_factory=Local)
    coarse: Coarse = field(default_factory=Coarse)
    coherent: Coherent = field(default_factory=Coherent)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        start, missing = self.coherent.start, self.coarse.allow_missing
        require(start == "none" or missing == 0, "coherent.start", start, "--coarse.allow_missing 0 with it")

    @classmethod
    def from_recipe(cls, name: str, options: Mapping[str, Any] | None = None) -> Config:
        """A recipe that ships, with single options over it.

        Args:
            name: of the recipe, see `ddhpc.recipes.recipe_names`.
            options: by name, as on the command line.

        Raises:
            InputError: there is no such recipe or option, or a value is of another type or out of range.

        Example:
            >>> config = Config.from_recipe("flowers", {"data.file": "x.h5", "decomposition.grid": [4, 4]})
            >>> config.decomposition
            Decomposition(grid=(4, 4), overlap=4, balance='blocks', coarse_image=False, coarse_shape=None)
        """
        return from_options(cls, {**recipe(name), **(options or {})})

    def to_yaml(self) -> str:
        """The configuration as YAML text that `--config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By section and field, plain values and lists."""
        sections: dict[str, dict[str, Any]] = with_lists(asdict(self))
        return sections

    @classmethod
    def from_yaml(cls, text: str) -> Config:
        """The configuration that `to_yaml` wrote, e.g. that of a results file; ValueError where it did not."""
        given = plain_values(text)
        if not isinstance(given, dict) or not all(isinstance(section, dict) for section in given.values()):
            raise ValueError("its configuration is no mapping of sections")
        for name, section in given.items():
            hints = get_type_hints(SECTIONS[name]) if name in SECTIONS else {}
            for option, value in section.items():
                if option not in hints or not fits(value, hints[option]):
                    raise ValueError(f"its configuration has {name}.{option}: {value!r}, which this version has not")
        sections = with_older(given)
        return cls(**{name: section(**with_tuples(sections.get(name, {}))) for name, section in SECTIONS.items()})


def with_older(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version kept of a configuration, and the options that it lacked; see `BEFORE`."""
    return {**given, **{name: {**older, **given.get(name, {})} for name, older in BEFORE.items()}}


SECTIONS: dict[str, type] = {
    "data": Data,
    "decomposition": Decomposition,
    "model": Model,
    "local": Local,
    "coarse": Coarse,
    "coherent": Coherent,
    "run": Run,
}
