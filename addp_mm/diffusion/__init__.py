# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pure functions of tensors and a generator: noise levels, masks, corruption, sampling rules."""

from addp_mm.diffusion.corruption import corrupt, corrupt_rows, expected_latents, mean_codes
from addp_mm.diffusion.halton import halton_order
from addp_mm.diffusion.masking import random_masks, seeded_masks, truncated_normal_ratios
from addp_mm.diffusion.noise import uniform_noise
from addp_mm.diffusion.sampling import (
    annealed_temperature,
    cosine_ratio,
    linear_ratio,
    mask_length,
    mask_lowest,
    most_likely,
    nucleus,
    power_ratio,
    remask,
    remask_in_order,
    sample_ids,
)
from addp_mm.diffusion.schedule import NoiseDraw, NoiseLevel, NoiseSchedule, masked_count, nested_masks

__all__ = [
    'NoiseDraw',
    'NoiseLevel',
    'NoiseSchedule',
    'annealed_temperature',
    'corrupt',
    'corrupt_rows',
    'cosine_ratio',
    'expected_latents',
    'halton_order',
    'linear_ratio',
    'mask_length',
    'mask_lowest',
    'masked_count',
    'mean_codes',
    'most_likely',
    'nested_masks',
    'nucleus',
    'power_ratio',
    'random_masks',
    'remask',
    'remask_in_order',
    'sample_ids',
    'seeded_masks',
    'truncated_normal_ratios',
    'uniform_noise',
]
