#!/bin/sh
# One job of the array that deploy/slurm.sh submits: its part of the list.
set -eu
out=$1
shift
exec soars segment-all "$out/.lists/$SLURM_ARRAY_TASK_ID.csv" "$out" "$@" --progress none
