#!/usr/bin/env bash
# flux batch cluster/train.flux [OPTION...]: the default recipe, or what the options of `ddhpc train` say
# flux: --job-name=ddhpc
# flux: --nslots=16
# flux: --cores-per-slot=4
# flux: --gpus-per-slot=1
# flux: --time-limit=4h
# flux: --output=flux-ddhpc-{{id}}.out

. cluster/job.sh
# three minutes before the end of this job, whose time limit it inherits
launcher=(flux run --ntasks=16 --cores-per-task=4 --gpus-per-task=1 --signal=USR2@3m)
again() { flux --parent batch cluster/train.flux "$@"; }
train_or_again "ddhpc-$(date +%Y%m%d-%H%M%S)" "$@"
