"""What results depend on: a run continues only where it is the same, and where runs meet, differences are named."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

import ddhpc
from ddhpc.config import BEFORE, CODE, DIGESTS, Config
from ddhpc.data.hdf5 import attribute
from ddhpc.errors import InputError
from ddhpc.parallel.communicator import Communicator

PLACES = ("data.file", "model.weights")
"""Where things are; what they hold is in `data_digest` and `weights_digest`."""
SHOWN_DIGITS = 12


def identity(config: Config, data_digest: str, weights_digest: str | None = None) -> dict[str, Any]:
    """All that the results depend on, nested dictionaries of plain values, by section as in `Config.to_dict`.

    Args:
        config: of the run.
        data_digest: of the packed file.
        weights_digest: of the file of known weights; None where all are drawn.
    """
    sections = config.to_dict()
    sections["run"] = {name: sections["run"][name] for name in ("seed", "device")}
    del sections["data"]["memory_limit"], sections["coarse"]["memory_limit"]
    return {
        **sections,
        **digests(data_digest, weights_digest),
        "ddhpc_version": ddhpc.__version__,
        "git_commit": git_commit(),
    }


def digests(data_digest: str, weights_digest: str | None) -> dict[str, str]:
    """Checksums of the files that a run starts from, by name."""
    return {"data_digest": data_digest, **({"weights_digest": weights_digest} if weights_digest else {})}


def identity_of(results: h5py.File) -> dict[str, Any]:
    """The identity of the run that left a results file."""
    config = Config.from_yaml(results.attrs["config"])
    found = identity(config, str(results.attrs["data_digest"]), attribute(results, "weights_digest", str))
    return found | {name: str(results.attrs[name]) for name in CODE}


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, hexadecimal; the same wherever its files lie, and as of versions that lacked options."""
    older = flat(BEFORE)
    counted = {
        key: value for key, value in flat(identity).items() if key not in PLACES and older.get(key, ...) != value
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], said: str = "{} was {} and is now {}"
) -> list[str]:
    """What differs between two identities, as in "run.seed was 0 and is now 1"."""
    before, now = flat(BEFORE) | flat(found), flat(BEFORE) | flat(wanted)
    changed = [key for key in {**before, **now} if key not in PLACES and before.get(key) != now.get(key)]
    return [said.format(key, _shown(key, before.get(key)), _shown(key, now.get(key))) for key in changed]


def check_alike(
    comm: Communicator, host: str, config: Config, data_digest: str, weights_digest: str | None = None
) -> None:
    """InputError on all ranks unless all would train the same: with the same options, on the same data.

    Packed files may lie on the disk of each node, and options in files that differ between nodes. All options have to
    agree, since some of which no result depends say who takes part in a collective.

    Args:
        comm: all ranks.
        host: of this rank.
        config: that this rank has read.
        data_digest: of the packed file that it sees.
        weights_digest: of the known weights that it sees; None without them.
    """
    mine = json.dumps({**config.to_dict(), **digests(data_digest, weights_digest)})
    first = comm.broadcast(mine)

    def compare() -> None:
        if changed := differences(json.loads(mine), json.loads(first), "{} is {}, on rank 0 {}"):
            raise InputError(
                f"rank {comm.rank} on {host} does not see what rank 0 sees: {', '.join(changed)}; expected the same "
                "options and packed file on all ranks"
            )

    comm.together(compare)


def _shown(key: str, value: Any) -> str:
    return str(value)[:SHOWN_DIGITS] if key in DIGESTS else str(value)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, by keys such as "run.seed"."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def code() -> str:
    """Version and commit of the code that runs."""
    return f"{ddhpc.__version__} {git_commit()}".strip()


def git_commit() -> str:
    """Commit of the source tree that runs, with -dirty when it is changed; empty when it is not a git checkout."""
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        return ""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
