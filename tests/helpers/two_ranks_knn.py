# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: a k-NN test in a Runner. Each returns metrics and bank."""

from pathlib import Path

import torch

from helpers.tiny_knn import build_runner


def job(work_dir: Path, world_size: int) -> dict:
    torch.distributed.init_process_group('gloo')
    runner = build_runner(str(work_dir / str(torch.distributed.get_rank())))
    metrics = runner.test()
    bank = runner.test_loop.bank
    metrics = {name: float(value) for name, value in metrics.items()}
    return dict(metrics=metrics, features=bank.features.tolist(), labels=bank.labels.tolist())
