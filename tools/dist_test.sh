#!/usr/bin/env bash
# Copyright (c) addp_mm contributors. Apache-2.0.
# Test on several processes: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [tools/test.py options]
# If CHECKPOINT is '', the weights come from the model's init_cfg.
# Environment: PYTHON; on several machines also NNODES, NODE_RANK, MASTER_ADDR and PORT (29500).
set -euo pipefail
[ $# -ge 3 ] && [[ $3 =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of tools/test.py]" >&2; exit 2; }
config=$1 checkpoint=$2 processes=$3
shift 3
tools=$(cd "$(dirname "$0")" && pwd)
rendezvous=(--standalone)
if [ "${NNODES:-1}" -gt 1 ]; then
  rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?set NODE_RANK on each machine}"
    --master-addr "${MASTER_ADDR:?set MASTER_ADDR to the first machine}" --master-port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m addp_mm.torchrun "${rendezvous[@]}" --nproc-per-node "$processes" \
  "$tools/test.py" "$config" ${checkpoint:+"$checkpoint"} --launcher pytorch "$@"
