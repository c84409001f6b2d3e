#!/usr/bin/env bash
# mpi-pytest.sh RANKS ARGUMENT...: pytest on all ranks of one MPI job. Rank 0 speaks; what the others wrote is shown when
# the job fails. A test that hangs dumps its stacks after 90 s, and the job is killed after 10 minutes.
set -euo pipefail
ranks=$1
shift
logs=.cache/mpi-$ranks
rm -rf "$logs"
mkdir -p "$logs"
export logs
echo "ddhpc: MPI tests with $ranks ranks"
# shellcheck disable=SC2016 # each rank expands its own variables
if ! timeout -k 30 600 mpirun -n "$ranks" bash -c '
  rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${PMIX_RANK:-0}}}
  [ "$rank" = 0 ] || exec >"$logs/rank-$rank.log" 2>&1
  exec python -m pytest --with-mpi -q --color=no -p no:cacheprovider -o faulthandler_timeout=90 "$@"' rank "$@" </dev/null; then
  tail -n 100 "$logs"/*.log 2>/dev/null || true
  echo "ddhpc: error: the MPI tests failed with $ranks ranks (all output of the ranks above 0: $logs)" >&2
  exit 1
fi
