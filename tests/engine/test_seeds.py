# Copyright (c) addp_mm contributors. Apache-2.0.
"""Seeds, ranks and iterations of a pre-training share no random numbers."""

import copy
import itertools
import json
import random

import numpy as np
import torch
from helpers.tiny_vqgan import TOKENIZER

from addp_mm.datasets import ResumableEpochSampler, ResumableInfiniteSampler
from addp_mm.diffusion import NoiseDraw, NoiseSchedule, nested_masks
from addp_mm.models.selfsup import TokenizerPretrain
from addp_mm.randomness import Purpose, generator_from_process, seed_process, seed_sequence, torch_generator
from addp_mm.registry import MODELS

# the sum of seed and rank is equal for (0, 1) and (1, 0)
RUNS = [*itertools.product((0, 1, 2), (0, 1), (0, 1, 2))]
IDS = torch.zeros(4, 64, dtype=torch.long)


def pairwise_different(values) -> bool:
    texts = [json.dumps(value) for value in values]
    return len(set(texts)) == len(texts)


def each_run(draw):
    """The random numbers of a training step for each seed, rank and iteration."""
    for seed, rank, iteration in RUNS:
        seed_process(seed, Purpose.TRAINING_STEP, rank, iteration)
        yield draw()


def addp_masks(schedule):
    noise = NoiseDraw.sample(schedule, generator_from_process())
    masks = nested_masks(64, noise.level, 2, noise.generator)
    return noise.level.ratio, [mask.tolist() for mask in masks]


def test_masks_and_noise_levels_of_addp():
    coarse = NoiseSchedule(num_levels=5)  # no level masks all tokens, and all such masks are equal
    assert pairwise_different([masks for _, masks in each_run(lambda: addp_masks(coarse))])
    ratios = [ratio for ratio, _ in each_run(lambda: addp_masks(NoiseSchedule()))]
    assert len(set(ratios)) > len(ratios) / 2


def test_masks_of_the_predictor():
    predictor = dict(type='addp_mm.MaskedTokenPredictor', num_tokens=64, embed_dims=8, num_layers=1, num_heads=2)
    model = MODELS.build(dict(type='addp_mm.PredictorPretrain', tokenizer=None, predictor=predictor, drop_ratio=0.5))
    assert pairwise_different([[part.tolist() for part in masks] for masks in each_run(lambda: model.draw_masks(IDS))])


def test_restarted_codes():
    model = TokenizerPretrain(copy.deepcopy(TOKENIZER), quantize_from=1, restart_interval=1)
    model.iteration.fill_(1)
    latents = torch.rand(4, model.tokenizer.codes.embedding_dim, 8, 8)

    def codes():
        model._restart_codes(latents)
        return model.tokenizer.codes.weight.tolist()

    assert pairwise_different(each_run(codes))


def test_orders_of_the_data(monkeypatch):
    orders = []
    for seed, rank in itertools.product((0, 1, 2), (0, 1)):
        for module in ('addp_mm.datasets.samplers.resumable_sampler', 'mmengine.dataset.sampler'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 2))
        endless = list(itertools.islice(ResumableInfiniteSampler(range(40), seed=seed), 60))
        orders += [endless[:20], endless[20:40], endless[40:]]
        by_epoch = ResumableEpochSampler(range(38), seed=seed)
        for epoch in range(3):
            by_epoch.set_epoch(epoch)
            orders.append(list(by_epoch))
    assert pairwise_different(orders)


def test_generators_follow_from_all_four_numbers_and_from_nothing_else():
    numbers = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 2**33)]
    states = [
        seed_sequence(seed, Purpose(purpose), *rest).generate_state(4).tolist() for seed, purpose, *rest in numbers
    ]
    assert pairwise_different(states)
    draws = [torch.rand(3, generator=torch_generator(5, Purpose.PREVIEW)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    both = []
    for _ in range(2):
        seed_process(5, Purpose.TRAINING_STEP, 1, 2)
        both.append((np.random.rand(), torch.rand(()).item(), random.random()))  # noqa: NPY002
    assert both[0] == both[1]
