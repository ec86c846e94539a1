# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: metrics of their shares of 31 predictions. Each prints them as JSON."""

import json
import os
import sys

import torch
from mmengine.dataset import DefaultSampler

from addp_mm.evaluation import CodebookUsage, PeakSignalNoiseRatio, ReconstructionFID, StructuralSimilarity
from helpers.tiny_extractor import predictions


def main() -> None:
    rank, port, config = sys.argv[1:]
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, RANK=rank, WORLD_SIZE='2', LOCAL_RANK=rank)
    torch.distributed.init_process_group('gloo')
    samples = predictions(31)
    mine = [samples[index] for index in DefaultSampler(samples, shuffle=False)]
    found = {}
    for metric in (
        PeakSignalNoiseRatio(),
        StructuralSimilarity(),
        CodebookUsage(32),
        ReconstructionFID(json.loads(config)),
    ):
        for start in range(0, len(mine), 5):
            metric.process({}, mine[start : start + 5])
        found.update(metric.evaluate(len(samples)))
    print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
