# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation of images with a trained model."""
from addp_mm.generation.alternating_sampler import (
    AlternatingSampler,
    Samples,
    SamplingStep,
    image_generators,
    token_mask,
)

__all__ = ['AlternatingSampler', 'Samples', 'SamplingStep', 'image_generators', 'token_mask']
