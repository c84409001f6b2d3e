"""The results file: create, write in parallel, finish atomically, open and verify.

Format version 1, and 2 where the second level is enriched.

Rank 0 creates the file with all its datasets before any training starts, so that a full disk shows then; the ranks
write their subdomains' slabs after it, all at once where h5py has MPI, through rank 0 where it has not: the same
values in the same file.
"""

from ddhpc.results.final import evaluated, unchecked_decisions
from ddhpc.results.format import COHERENT, DEVICE_BYTES, FUSIONS, PHASES, SCORED, Layout, create, phase_row
from ddhpc.results.gather import gather_local, mean_outputs, stored_outputs
from ddhpc.results.identity import (
    check_alike,
    code,
    differences,
    digests,
    fingerprint,
    flat,
    git_commit,
    identity,
    identity_of,
)
from ddhpc.results.lock import counted, earlier_jobs, lock
from ddhpc.results.pooled import Pooled, fold_of, pool
from ddhpc.results.reader import has_coarse_image, names, open_results, patients, verify
from ddhpc.results.run_directory import FILE, PART, begin, file_system, is_finished, run_directory
from ddhpc.results.schema import balance
from ddhpc.results.writer import Outcome, Timing, check_own, finish, local_slabs, write_local

__all__ = [
    "COHERENT",
    "DEVICE_BYTES",
    "FILE",
    "FUSIONS",
    "PART",
    "PHASES",
    "SCORED",
    "Layout",
    "Outcome",
    "Pooled",
    "Timing",
    "balance",
    "begin",
    "check_alike",
    "check_own",
    "code",
    "counted",
    "create",
    "differences",
    "digests",
    "earlier_jobs",
    "evaluated",
    "file_system",
    "fingerprint",
    "finish",
    "flat",
    "fold_of",
    "gather_local",
    "git_commit",
    "has_coarse_image",
    "identity",
    "identity_of",
    "is_finished",
    "local_slabs",
    "lock",
    "mean_outputs",
    "names",
    "open_results",
    "patients",
    "phase_row",
    "pool",
    "run_directory",
    "stored_outputs",
    "unchecked_decisions",
    "verify",
    "write_local",
]
