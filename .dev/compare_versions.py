# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time training steps of another checkout of addp_mm and of this one, in turns.

    git worktree add work_dirs/before COMMIT
    python .dev/compare_versions.py work_dirs/before configs/pretrain/CONFIG.py …

Each version trains the config of its own checkout in a process of its own, on random images or
stored ids. Only what both versions have is used.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKER = """
import copy, logging, os, sys, time
logging.disable(logging.WARNING)
import addp_mm, torch
assert addp_mm.__file__.startswith(os.getcwd()), addp_mm.__file__
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from addp_mm.analysis.batches import build_model, scope_of
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.engine.device import choose_device

choose_device('cpu')
torch.manual_seed(0)
cfg = Config.fromfile(sys.argv[1])
batch = cfg.train_dataloader.batch_size
with scope_of(cfg):
    model = build_model(cfg).train()
    init_weights(model)
    settings = copy.deepcopy(cfg.optim_wrapper)
    settings.pop('accumulative_counts', None)
    optimizer = build_optim_wrapper(model, settings)
ids = 'predictor' in cfg.model and cfg.model.get('tokenizer') is None
images = torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8)
inputs = torch.randint(0, cfg.model.predictor.token_space.codebook_size, (batch, 64)) if ids else images
data = dict(inputs=inputs, data_samples=[DataSample().set_gt_label(0) for _ in range(batch)])
print(batch, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        with scope_of(cfg):
            model.train_step(dict(data), optimizer)
    print(time.perf_counter() - start, flush=True)
"""


class Version:
    """A checkout whose process trains a config when it is asked to."""

    def __init__(self, folder: Path, config: str) -> None:
        command = [sys.executable, '-W', 'ignore', '-c', WORKER, str(folder / config)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        environment = {**os.environ, 'PYTHONPATH': str(folder)}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        self.batch_size = int(self._answer())

    def seconds(self, steps: int) -> float:
        """Train for some steps."""
        self.process.stdin.write(f'{steps}\n')
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'error: {self.process.args[-1]} cannot be trained here')
        return line

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def compare(before: Path, config: str, rounds: int, steps: int) -> str:
    """The row of a config: images a second of both versions, and the ratio with its quartiles."""
    versions = [Version(folder, config) for folder in (before, ROOT)]
    for version in versions:
        version.seconds(2)
    turns = [[version.seconds(steps) for version in versions] for _ in range(rounds)]
    for version in versions:
        version.close()
    low, middle, high = statistics.quantiles([first / second for first, second in turns] * 2, n=4)
    rates = [steps * versions[0].batch_size / statistics.median(times) for times in zip(*turns, strict=True)]
    return f'| {Path(config).stem} | {rates[0]:.1f} | {rates[1]:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |'


def parse_args(argv=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('before', type=Path, help='folder of the other checkout')
    parser.add_argument('configs', nargs='+', help='configs, by their paths in both checkouts')
    parser.add_argument('--rounds', type=int, default=7, help='turns of each version [7]')
    parser.add_argument('--steps', type=int, default=5, help='steps in a turn [5]')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    """Print a table."""
    args = parse_args(argv)
    print('| config | images a second before | now | ratio (quartiles) |\n|---|---:|---:|---:|')
    for config in args.configs:
        print(compare(args.before.resolve(), config, args.rounds, args.steps), flush=True)


if __name__ == '__main__':
    main()
