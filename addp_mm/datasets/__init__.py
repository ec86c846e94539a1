# Copyright (c) addp_mm contributors. Apache-2.0.
"""Datasets, transforms and samplers."""

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.broken_images import BrokenImages, TooManyBrokenImagesError
from addp_mm.datasets.listed.image_files import ImageFiles
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.lmdb_images import LMDBImages
from addp_mm.datasets.listed.webdataset_images import WebDatasetImages
from addp_mm.datasets.readers.load_image import BrokenImageError, LoadImage
from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.samplers.resumable_sampler import ResumableEpochSampler, ResumableInfiniteSampler
from addp_mm.datasets.samplers.seeded_samples import SampleIndex, SeedAugmentation
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.with_token_labels import WithTokenLabels
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.tokens.token_store import TokenStoreError
from addp_mm.datasets.views.make_view import MakeView

__all__ = [
    'BrokenImageError',
    'BrokenImages',
    'DatasetError',
    'ImageFiles',
    'LMDBImages',
    'LabelMapError',
    'ListedImages',
    'LoadImage',
    'LoadMultiChannelImage',
    'MakeView',
    'ResumableEpochSampler',
    'ResumableInfiniteSampler',
    'SampleIndex',
    'SeedAugmentation',
    'TokenIds',
    'TokenStoreError',
    'TooManyBrokenImagesError',
    'WebDatasetImages',
    'WithTokenLabels',
]
