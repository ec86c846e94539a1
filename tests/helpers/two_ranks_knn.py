# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: a k-NN test in a Runner. Each prints metrics and bank as JSON."""

import json
import os
import sys

import torch

from helpers.tiny_knn import build_runner


def main() -> None:
    rank, port, work_dir = sys.argv[1:]
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, RANK=rank, WORLD_SIZE='2', LOCAL_RANK=rank)
    torch.distributed.init_process_group('gloo')
    runner = build_runner(work_dir)
    metrics = runner.test()
    bank = runner.test_loop.bank
    print(json.dumps(dict(metrics=metrics, features=bank.features.tolist(), labels=bank.labels.tolist())))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
