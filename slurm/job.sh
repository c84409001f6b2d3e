# shellcheck shell=bash
# What the sbatch files share, and in part those of cluster/. Slurm copies a submitted file alone to the compute node, so
# submit from the directory that holds slurm/: this file, site.env and .venv are looked up there.

# before `set -u`, which the module command of many sites does not survive
# shellcheck source=/dev/null
[ ! -e slurm/site.env ] || . slurm/site.env
[ ! -x .venv/bin/python ] || PATH=$PWD/.venv/bin:$PATH
set -euo pipefail

find_launcher() { # RANKS: sets `launcher` to the words that start an MPI job on tasks of this allocation
  if [[ $(srun --mpi=list 2>&1) == *pmix* ]]; then
    # Since Slurm 22.05 srun does not inherit --cpus-per-task. A lost rank would leave the others waiting for ever.
    launcher=(srun --mpi=pmix "--ntasks=$1" "--cpus-per-task=${SLURM_CPUS_PER_TASK:-1}" --cpu-bind=cores
      --kill-on-bad-exit=1)
    # The tree of Slurm's default fence has no branches on fewer nodes than TreeWidth (22.05 to 26.05 at least): nobody
    # waits in the barrier that ends MPI_Init, and a rank that is late there crashes when another sends it a message.
    export SLURM_PMIX_FENCE=ring
    launcher+=(${unpacked:+bash -c "$use_unpacked" bash})
    return
  fi
  # On the other nodes mpirun starts one daemon each by srun, which without this leaves one GPU to all ranks of a node.
  if [ -n "${SLURM_GPUS_PER_TASK:-}" ]; then
    export SLURM_GPUS=$((SLURM_NTASKS * SLURM_GPUS_PER_TASK - SLURM_GPUS_ON_NODE))
    unset SLURM_GPUS_PER_TASK
  fi
  launcher=(mpirun -n "$1")
  # that of Intel MPI is a script, which does not pass signals on
  [[ $(mpirun --version 2>&1) != *Intel* ]] || launcher=(mpiexec.hydra -n "$1")
  launcher+=(${unpacked:+bash -c "$use_unpacked" bash})
}

on_all_tasks() { # COMMAND...: becomes an MPI job on all tasks of this allocation
  find_launcher "$SLURM_NTASKS"
  # the job's own shell stays to remove what it has unpacked
  if [ -n "$unpacked" ] && [ "$BASHPID" = $$ ]; then
    "${launcher[@]}" "$@"
    exit
  fi
  exec "${launcher[@]}" "$@"
}

find_output() { # OPTION...: sets `output` to the directory of --output, empty without it; refuses --overwrite
  local previous="" word
  output=""
  for word in "$@"; do
    [ "$previous" != --output ] || output=$word
    [[ $word != --output=* ]] || output=${word#--output=}
    if [ "$word" = --overwrite ]; then
      echo "--overwrite: a requeued job would start anew each time; expected --output with a new directory" >&2
      return 2
    fi
    previous=$word
  done
}

train() { # LAUNCHER OPTION...: train, and go back to the queue when the time ends before the training
  local start=$1 mine=""
  shift
  find_output "$@" || return
  # the job's number stays the same when it is requeued, so the program finds its checkpoints
  if [ -z "$output" ]; then
    output=runs/$SLURM_JOB_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
    set -- "$@" --output "$output"
  fi
  if [ "${SLURM_RESTART_COUNT:-0}" != 0 ] && [ -e "$output/results.h5" ]; then
    echo "$output was finished when this job was requeued: nothing is left to do"
    return 0
  fi

  # of one subdomain, whose checkpoint alone counts: others may be there from other tasks of an array
  if [[ " $* " =~ .*" --subdomain"[=\ ]([0-9]+)" " ]]; then
    mine=$(printf %05d "$((10#${BASH_REMATCH[1]}))")
  fi
  to_its_end "$output/checkpoints/$mine*" "in $output" "the same again with --output $output" \
    "$start" python -m ddhpc train "$@"
}

to_its_end() { # CHECKPOINTS WHERE AGAIN COMMAND...: run it, and go back to the queue when the time ends before it
  # three times at most as long as no file matches CHECKPOINTS, if it is not empty
  local checkpoints=$1 where=$2 again=$3 step code interrupted=yes asked="" preempted=""
  shift 3
  "$@" &
  step=$!
  # --signal=B: reaches this shell alone, and bash runs a trap only when it waits, so the step runs beside it
  trap 'asked=yes interrupted=yes; kill -USR1 "$step" || true' USR1
  trap 'asked=yes interrupted=yes; kill -USR2 "$step" || true' USR2
  while [ "$interrupted" ]; do
    interrupted="" code=0
    wait "$step" || code=$?
  done
  # a preempted job has time until its grace ends, and is lost when it leaves before on its own
  [[ $(scontrol show job "$SLURM_JOB_ID") != *PreemptTime=2* ]] || preempted=yes

  # 2: bad input. 75: stopped, with checkpoints. Above 128: the signal itself killed ranks, before they knew it or
  # after the last step, or srun ended those that left more slowly than the first.
  if [ "$asked$preempted" ] && { [ "$code" = 75 ] || [ "$code" -gt 128 ]; }; then
    if [ -z "$preempted" ] && [ "${SLURM_RESTART_COUNT:-0}" -ge 2 ] && [ "$checkpoints" ] &&
      ! compgen -G "$checkpoints" >/dev/null; then
      echo "stopped three times before its first checkpoint; expected a longer --time, or a shorter one in --signal" >&2
      return "$code"
    fi
    # said before, and 128: Slurm ends this shell and scontrol as soon as it has taken the job back
    echo "going back to the queue to continue $where"
    if scontrol requeue "$SLURM_JOB_ID" || [ $? -gt 128 ]; then
      return "$code"
    fi
  fi
  if [ "$code" != 0 ] && [ "$code" != 2 ]; then
    echo "ended with exit code $code; to continue, submit $again" >&2
  fi
  return "$code"
}

on_each_node() { # COMMAND...: one task a node
  srun --mpi=none "--nodes=$SLURM_JOB_NUM_NODES" "--ntasks=$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 "$@"
}

unpack_environment() { # FILE: a tar of slurm/environment.sh onto each node's own disk, for the time of this job
  local running
  if [ ! -r "$1" ]; then
    echo "DDHPC_ENVIRONMENT=$1: no such file; expected a tar that slurm/environment.sh has made" >&2
    return 2
  fi
  unpacked=${DDHPC_LOCAL:-/tmp}/ddhpc-environment-$(id -un)-$SLURM_JOB_ID
  # A cancelled job has no step in which to clean up: the next one does.
  running=$(squeue -h -u "$(id -un)" -t R,CG,S -o %A | tr '\n' ' ') || running=
  trap 'on_each_node rm -rf "$unpacked" || true' EXIT
  # shellcheck disable=SC2016
  on_each_node bash -c '
    set -eu
    tar=$1 unpacked=$2 running=" $3" here=$2/$SLURMD_NODENAME
    for old in "${unpacked%-*}"-*; do
      [[ $running != *" ${unpacked##*-} "* || $running == *" ${old##*-} "* ]] || rm -rf "$old"
    done
    rm -rf "$here"
    mkdir -p -m 700 "$unpacked"
    mkdir "$here"
    need=$(stat -Lc %s "$tar")
    free=$(df --output=avail -B1 "$here" | tail -n 1)
    if [ "$free" -lt "$need" ]; then
      echo "$SLURMD_NODENAME: ${unpacked%/*} has $((free >> 20)) MiB free, $tar needs $((need >> 20)); expected" \
        "DDHPC_LOCAL with a larger disk of the node" >&2
      exit 2
    fi
    tar -xf "$tar" -C "$here"
    echo "home = $here/base/bin" >"$here/venv/pyvenv.cfg"' bash "$1" "$unpacked" "$running"
  # The directory has the name of the node, so each rank finds python through a shell. Python 3.11 and newer take ddhpc
  # from there also where the job was submitted from its sources. No braces: `sweep --launcher` fills them in.
  use_unpacked="here=$(printf %q "$unpacked")/\$SLURMD_NODENAME; site=\$(echo \"\$here\"/venv/lib/python*/site-packages)
    export PATH=\$here/venv/bin:\$PATH PYTHONSAFEPATH=1
    export PYTHONPATH=\$site:$(printf %q "$PWD${PYTHONPATH:+:$PYTHONPATH}")"
  eval "$use_unpacked"
  use_unpacked+='; exec "$@"'
}

unpacked="" use_unpacked=""
if [ -n "${DDHPC_ENVIRONMENT:-}" ]; then
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    unpack_environment "$DDHPC_ENVIRONMENT"
  else
    echo "DDHPC_ENVIRONMENT=$DDHPC_ENVIRONMENT: ignored; expected a Slurm job to unpack it in" >&2
  fi
fi
