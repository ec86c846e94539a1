# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.evaluation.nearest_neighbours import NeighbourAccuracy
from addp_mm.evaluation.reconstruction import CodebookUsage, PeakSignalNoiseRatio

__all__ = ['CodebookUsage', 'NeighbourAccuracy', 'PeakSignalNoiseRatio']
