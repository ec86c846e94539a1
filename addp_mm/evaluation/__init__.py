# Copyright (c) addp_mm contributors. Apache-2.0.
"""Metrics of reconstruction, generation, token prediction and features, as mmengine metrics."""

from addp_mm.evaluation.feature_extractors import (
    BackboneFeatures,
    FeatureExtractor,
    InceptionFeatures,
    build_extractor,
    extractor_of,
)
from addp_mm.evaluation.feature_statistics import FeatureStatistics, StatisticsError, frechet_distance
from addp_mm.evaluation.frechet import FrechetDistance, ReconstructionFID
from addp_mm.evaluation.image_folders import folder_statistics
from addp_mm.evaluation.masked_tokens import MaskedTokenAccuracy
from addp_mm.evaluation.nearest_neighbours import NeighbourAccuracy
from addp_mm.evaluation.perceptual_similarity import LearnedPerceptualSimilarity
from addp_mm.evaluation.reconstruction import CodebookUsage, PeakSignalNoiseRatio
from addp_mm.evaluation.structural_similarity import StructuralSimilarity, structural_similarity

__all__ = [
    'BackboneFeatures',
    'CodebookUsage',
    'FeatureExtractor',
    'FeatureStatistics',
    'FrechetDistance',
    'InceptionFeatures',
    'LearnedPerceptualSimilarity',
    'MaskedTokenAccuracy',
    'NeighbourAccuracy',
    'PeakSignalNoiseRatio',
    'ReconstructionFID',
    'StatisticsError',
    'StructuralSimilarity',
    'build_extractor',
    'extractor_of',
    'folder_statistics',
    'frechet_distance',
    'structural_similarity',
]
