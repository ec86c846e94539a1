# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: validation by nine generated images. Each prints a line of JSON."""

import json
import os
import sys
from pathlib import Path

import torch

from addp_mm.engine.loops import GenerationValLoop
from addp_mm.registry import HOOKS
from helpers.tiny_pretraining import build_runner


def main() -> None:
    options, folder, port, rank = sys.argv[1:]
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, RANK=rank, WORLD_SIZE='2', LOCAL_RANK=rank)
    torch.distributed.init_process_group('gloo')
    hook = HOOKS.build(dict(json.loads(options), num_images=9))
    runner = build_runner(Path(folder) / 'ranks', custom_hooks=[hook])
    generated: list[int] = []
    whole = GenerationValLoop.generate

    def noted(self, numbers):
        generated.extend(map(int, numbers))
        return whole(self, numbers)

    GenerationValLoop.generate = noted
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    hook.before_train(runner)
    print(json.dumps(dict(metrics=runner.val_loop.run(), generated=generated)))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
