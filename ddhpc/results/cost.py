"""What a run cost, and how that compares with its baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ddhpc.config import CODE, Config
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method.decomposition import team_of
from ddhpc.results import names
from ddhpc.wording import by, plural


@dataclass(frozen=True, kw_only=True)
class CriticalPath:
    """Seconds of the slowest local CNN and of the coarse DNN, one after the other."""

    slowest: int
    """The subdomain."""
    local: float
    coarse: float
    clock: str
    """How the local seconds are counted: "CPU" or "wall"."""
    shared: bool
    """Whether some subdomains shared a rank or a core, or several jobs trained them, so that no clock on the wall
    showed this time."""

    @property
    def seconds(self) -> float:
        """Of the whole path."""
        return self.local + self.coarse

    @property
    def kind(self) -> str:
        """Whether it was "measured", or is "projected" to a rank and a core or GPU for each subdomain."""
        return "projected" if self.shared else "measured"


def critical_path(file: h5py.File) -> CriticalPath:
    """The critical path of a run, as it would be with a rank and a core or GPU of its own for each subdomain.

    Counts CPU seconds on CPUs, since ranks that share cores wait for each other, and real time on GPUs.
    """
    on_cpu = file["local/device"][0].decode() == "CPU"
    local = path_seconds(file) if on_cpu else file["local/seconds"][...]
    slowest = int(np.nanargmax(local))
    hosts = file.attrs["hosts"].tolist()
    crowded = on_cpu and max(map(hosts.count, hosts)) > file.attrs["cores"]
    return CriticalPath(
        slowest=slowest,
        local=float(local[slowest]),
        coarse=float(file["timing"].attrs["coarse"]) if len(local) > 1 else 0.0,
        clock="CPU" if on_cpu else "wall",
        shared=bool(crowded or file.attrs["ranks"] < len(local) or not in_one_job(file)),
    )


def in_one_job(file: h5py.File) -> bool:
    """Whether one job did the whole run: what it says of its ranks does not hold for others."""
    timing = file["timing"].attrs
    return bool(timing.get("jobs", 1) == 1 and np.isfinite(timing["total"]))


def path_seconds(file: h5py.File) -> np.ndarray:
    """CPU seconds of one of the ranks that trained each subdomain together, [N], of all jobs.

    Older files hold those of the whole team, which are divided by its size in the last job.
    """
    if "path_seconds" in file["local"]:
        return np.asarray(file["local/path_seconds"][...])
    return np.asarray(file["local/cpu_seconds"][...] / team_sizes(file))


def team_sizes(file: h5py.File) -> np.ndarray:
    """How many ranks trained each subdomain together, [N] int64."""
    ranks, subdomains = int(file.attrs["ranks"]), len(file["local/seconds"])
    return np.array(
        [len(team_of(subdomains, ranks, rank)[1]) if ranks > subdomains else 1 for rank in file["local/rank"]]
    )


def machine(file: h5py.File) -> str:
    """What a run had to compute on: 16 ranks on 2 cores a node."""
    ranks, cores = (int(file.attrs[name]) for name in ("ranks", "cores"))
    hosts = len(set(file.attrs["hosts"].tolist()))
    return f"{plural(ranks, 'rank')} on {plural(cores, 'core')}" + (f" of each of {hosts} nodes" if hosts > 1 else "")


def check_baseline(file: h5py.File, baseline: h5py.File, named: Path) -> None:
    """InputError unless a run is the global CNN on the data and splits of another run.

    Args:
        file: results of the run.
        baseline: results of what is to be its baseline.
        named: what the user typed for it.
    """
    option = f"--baseline {named}"
    grid = baseline["decomposition"].attrs["grid"]
    if max(grid) > 1:
        raise InputError(f"{option}: has the grid {by(grid)}; expected the global CNN, --decomposition.grid of ones")
    own, its = (names(each["classes"]) for each in (file, baseline))
    if own != its:
        raise InputError(f"{option}: has the classes {', '.join(its)}; expected {', '.join(own)}, as the run has")
    for split in SPLITS:
        mine, other = (len(each[f"samples/{split}/label"]) for each in (file, baseline))
        if mine != other:
            raise InputError(f"{option}: has {other} {split} samples; expected {mine}, as the run has")
        for part in ("id", "label"):
            mine, other = (each[f"samples/{split}/{part}"][...] for each in (file, baseline))
            if not np.array_equal(mine, other):
                first = int(np.argmin(mine == other))
                raise InputError(
                    f"{option}: has another {part} for {split} sample {first} ({_shown(other[first])}); "
                    f"expected {_shown(mine[first])}, the same splits as the run has"
                )
    mine, other = (each.attrs["data_digest"] for each in (file, baseline))
    if mine != other:
        raise InputError(
            f"{option}: has other pixels ({other[:12]}); expected the packed file of the run ({mine[:12]})"
        )


def differences(file: h5py.File, baseline: h5py.File) -> list[str]:
    """What of the training differs between a run and its baseline, apart from the decomposition and the width."""
    mine, other = (Config.from_yaml(each.attrs["config"]).to_dict() for each in (file, baseline))
    pairs = {
        f"{section}.{name}": (mine[section][name], other[section][name])
        for section, names in (("model", ("name", "depth", "global_width")), ("local", mine["local"]))
        for name in names
    }
    pairs["run.seed"] = mine["run"]["seed"], other["run"]["seed"]
    for name in CODE:
        pairs[name] = file.attrs[name] or "none", baseline.attrs[name] or "none"
    pairs["processor"] = file.attrs["processor"], baseline.attrs["processor"]
    pairs["device"] = _shown(file["local/device"][0]), _shown(baseline["local/device"][0])
    return [f"{name} is {own} against {its}" for name, (own, its) in pairs.items() if own != its]


def _shown(value: bytes | np.integer) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
