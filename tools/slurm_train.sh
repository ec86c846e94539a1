#!/usr/bin/env bash
# Copyright (c) addp_mm contributors. Apache-2.0.
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [tools/train.py options]
# Environment: GPUS (total, 8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), PORT (random, 20000 to 39999), SRUN_ARGS (more
# options of srun), PYTHON.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2; exit 2; }
partition=$1 job=$2 config=$3
shift 3
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
  --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$tools/train.py" "$config" --launcher slurm "$@"
