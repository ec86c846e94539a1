#!/usr/bin/env bash
# Copyright (c) addp_mm contributors. Apache-2.0.
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [tools/train.py options]
# Environment: GPUS (total, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), PORT (random, 20000 to 39999), SRUN_ARGS (more
# options of srun), STOP_SECONDS (Slurm asks the training to save this long before the time limit, 120), PYTHON.
# A training that was stopped (status 75: it has saved) continues: a batch job is requeued, otherwise srun starts again.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
# A training that starts again continues from what this launch has saved (addp_mm/engine/restarts.py).
if [ -n "${SLURM_JOB_ID:-}" ]; then
  export ADDP_MM_LAUNCH=slurm-$SLURM_JOB_ID ADDP_MM_ATTEMPT=${SLURM_RESTART_COUNT:-0}
else
  ADDP_MM_LAUNCH=srun-$HOSTNAME-$$-$(date +%s)
  export ADDP_MM_LAUNCH ADDP_MM_ATTEMPT=0
fi
while true; do
  export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
  status=0
  # The processes of a stopped training end with 75 one after the other, the one with the store last: --kill-on-bad-exit
  # would kill it. If one fails, the others notice it and end by themselves. srun ends with the highest status.
  # shellcheck disable=SC2086  # SRUN_ARGS holds several words
  srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=0 \
    --signal="USR1@${STOP_SECONDS:-120}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/train.py" "$config" --launcher slurm "$@" || status=$?
  # 143: SIGTERM came before a process could save
  if [ "$status" -ne 75 ] && [ "$status" -ne 143 ]; then exit "$status"; fi
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    echo "training was stopped (status $status): job $SLURM_JOB_ID is requeued" >&2
    scontrol requeue "$SLURM_JOB_ID"
    exit "$status"
  fi
  echo "training was stopped (status $status): srun starts it again" >&2
  ADDP_MM_ATTEMPT=$((ADDP_MM_ATTEMPT + 1))
done
