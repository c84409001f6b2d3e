#!/usr/bin/env bash
# install.sh: what an image needs, on a bare Debian or Ubuntu, as root: the set-up of `make run`, in the copy of the
# project around this file. ddhpc.def and the Dockerfile run it, and bare.sh without a container engine.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends ca-certificates make
scripts/setup.sh run
.venv/bin/python -c 'import h5py; assert h5py.get_config().mpi, "h5py has no MPI: see .cache/setup.log"'
# what only the installation needed
rm -rf .cache ~/.cache/ddhpc ~/.cache/pip /var/lib/apt/lists/*
apt-get clean
