# shellcheck shell=bash
# What the files of PBS and Flux share. Submit from the directory that holds cluster/ and slurm/: modules, .venv and the
# check of options are those of slurm/job.sh.

. slurm/job.sh

train_or_again() { # NAME OPTION...: train by `launcher`; `again OPTION...` submits what is left when the time ends
  local name=$1 code=0
  shift
  find_output "$@" || return
  if [ -z "$output" ]; then
    output=runs/$name
    set -- "$@" --output "$output"
    if [ -e "$output/results.h5" ]; then
      echo "$output was finished when this job was run again: nothing is left to do"
      return 0
    fi
  fi
  "${launcher[@]}" python -m ddhpc train "$@" || code=$?
  # 75: stopped, with checkpoints; above 128: the signal itself killed ranks, before they knew it
  if [ "$code" = 75 ] || [ "$code" -gt 128 ]; then
    if ! compgen -G "$output/checkpoints/*" >/dev/null; then
      echo "stopped before its first checkpoint; expected a longer time limit" >&2
      return "$code"
    fi
    echo "back to the queue to continue"
    again "$@"
  fi
  return "$code"
}
