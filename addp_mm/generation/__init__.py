# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation of images with a trained model."""

from addp_mm.generation.alternating_sampler import AlternatingSampler, token_mask
from addp_mm.generation.guidance import Guidance
from addp_mm.generation.image_streams import image_generator, image_generators
from addp_mm.generation.sampling_schedule import SamplingSchedule
from addp_mm.generation.sampling_state import Samples, SamplingStep
from addp_mm.generation.tiles import Tile, TiledInpainter, plan_tiles

__all__ = [
    'AlternatingSampler',
    'Guidance',
    'Samples',
    'SamplingSchedule',
    'SamplingStep',
    'Tile',
    'TiledInpainter',
    'image_generator',
    'image_generators',
    'plan_tiles',
    'token_mask',
]
