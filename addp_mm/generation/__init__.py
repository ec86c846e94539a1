# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation of images with a trained model."""

from addp_mm.generation.alternating_sampler import AlternatingSampler, image_generators, token_mask
from addp_mm.generation.sampling_state import Samples, SamplingStep

__all__ = ['AlternatingSampler', 'Samples', 'SamplingStep', 'image_generators', 'token_mask']
