#!/usr/bin/env bash
# Copyright (c) addp_mm contributors. Apache-2.0.
# Train on several processes of one machine or of several: tools/dist_train.sh CONFIG PROCESSES [tools/train.py options]
# Environment: MAX_RESTARTS (0): how often all processes are started again after one has failed, and continue from the
# last checkpoint; PYTHON; on several machines also NNODES, NODE_RANK, MASTER_ADDR and PORT (29500). A single machine uses
# a free port.
set -euo pipefail
[ $# -ge 2 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 CONFIG PROCESSES [options of tools/train.py]" >&2; exit 2; }
config=$1 processes=$2
shift 2
tools=$(cd "$(dirname "$0")" && pwd)
rendezvous=(--standalone)
if [ "${NNODES:-1}" -gt 1 ]; then
  rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?set NODE_RANK on each machine}"
    --master-addr "${MASTER_ADDR:?set MASTER_ADDR to the first machine}" --master-port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m addp_mm.torchrun "${rendezvous[@]}" --nproc-per-node "$processes" \
  --max-restarts "${MAX_RESTARTS:-0}" \
  "$tools/train.py" "$config" --launcher pytorch "$@"
