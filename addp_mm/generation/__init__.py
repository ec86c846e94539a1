# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation of images with a trained model."""

from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.alternating_steps import AlternatingSteps
from addp_mm.generation.guidance import Guidance
from addp_mm.generation.image_streams import image_generator, image_generators
from addp_mm.generation.sampling_schedule import SamplingSchedule
from addp_mm.generation.sampling_state import Samples, SamplingStep
from addp_mm.generation.tiles import Tile, TiledInpainter, plan_tiles
from addp_mm.generation.token_mask import token_mask

__all__ = [
    'AlternatingSampler',
    'AlternatingSteps',
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
