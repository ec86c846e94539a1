#!/usr/bin/env bash
# Copyright (c) addp_mm contributors. Apache-2.0.
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [tools/train.py options]
# Environment: GPUS (total, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), PORT (random, 20000 to 39999), SRUN_ARGS (more
# options of srun), STOP_SECONDS (Slurm asks the training to save this long before the time limit, 120), PYTHON.
# A training that was stopped and has saved (status 75) continues: a batch job is requeued, otherwise srun starts again.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
resume=()  # comes last, so that it counts and not a checkpoint that the command names
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then resume=(--resume); fi
while true; do
  export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
  status=0
  # shellcheck disable=SC2086  # SRUN_ARGS holds several words
  srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 \
    --signal="USR1@${STOP_SECONDS:-120}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/train.py" "$config" --launcher slurm "$@" "${resume[@]}" || status=$?
  [ "$status" -eq 75 ] || exit "$status"
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    echo "training has saved and ended: job $SLURM_JOB_ID is requeued" >&2
    scontrol requeue "$SLURM_JOB_ID"
    exit 75
  fi
  echo 'training has saved and ended: srun starts it again' >&2
  resume=(--resume)
done
