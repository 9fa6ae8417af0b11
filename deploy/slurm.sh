#!/bin/sh
# Many CTs on a cluster with Slurm: deploy/slurm.sh LIST OUT TASKS [OPTION OF soars segment-all]...
#
# LIST is a CSV list with the columns case and ct (absolute paths), OUT a folder that all machines see. The list is dealt
# out to an array of jobs; a last job segments what one of them has not, and writes the tables over all cases. Start it
# again after a failure: cases that are done are skipped.
set -eu
list=$1 out=$2 tasks=$3
shift 3
mkdir -p "$out/.lists"
awk -v tasks="$tasks" -v folder="$out/.lists" '
    NR == 1 { for (task = 0; task < tasks; task++) print > (folder "/" task ".csv"); next }
    { print > (folder "/" (NR % tasks) ".csv") }' "$list"

array=$(sbatch --parsable --job-name=soars --array="0-$((tasks - 1))" --cpus-per-task=4 --mem=8G \
    --output="$out/.lists/%a.log" deploy/slurm-task.sh "$out" "$@")
sbatch --job-name=soars-tables --dependency="afterany:$array" --cpus-per-task=4 --mem=8G \
    --output="$out/.lists/tables.log" --wrap="soars segment-all $(printf "'%s' " "$list" "$out" "$@") --progress none"
