# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: validation by nine generated images. Each returns metrics and numbers."""

from pathlib import Path

import torch

from addp_mm.engine.loops import GenerationValLoop
from addp_mm.registry import HOOKS
from helpers.tiny_pretraining import build_runner


def job(work_dir: Path, world_size: int, options: dict) -> dict:
    torch.distributed.init_process_group('gloo')
    hook = HOOKS.build(dict(options, num_images=9))
    runner = build_runner(work_dir, custom_hooks=[hook])
    generated: list[int] = []
    whole = GenerationValLoop.generate

    def noted(self, numbers):
        generated.extend(map(int, numbers))
        return whole(self, numbers)

    GenerationValLoop.generate = noted
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    hook.before_train(runner)
    metrics = {name: float(value) for name, value in runner.val_loop.run().items()}
    return dict(metrics=metrics, generated=generated)
