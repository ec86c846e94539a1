# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.datasets.broken_images import BrokenImages, TooManyBrokenImages
from addp_mm.datasets.checks import DatasetError, check_dataset_cfg, check_image_folder, check_same_classes
from addp_mm.datasets.image_files import ImageFiles
from addp_mm.datasets.lmdb_images import LMDBImages
from addp_mm.datasets.load_image import BrokenImageError, LoadImage
from addp_mm.datasets.make_view import MakeView
from addp_mm.datasets.multi_channel import LoadMultiChannelImage
from addp_mm.datasets.own_images import ListedImages
from addp_mm.datasets.resumable_sampler import ResumableInfiniteSampler
from addp_mm.datasets.seeded_samples import SampleIndex, SeededSamples
from addp_mm.datasets.token_ids import TokenIds
from addp_mm.datasets.token_store import TokenStoreError
from addp_mm.datasets.webdataset_images import WebDatasetImages

__all__ = [
    'BrokenImageError', 'BrokenImages', 'DatasetError', 'ImageFiles', 'LMDBImages', 'ListedImages', 'LoadImage',
    'LoadMultiChannelImage', 'MakeView', 'ResumableInfiniteSampler', 'SampleIndex', 'SeededSamples', 'TokenIds',
    'TokenStoreError', 'TooManyBrokenImages', 'WebDatasetImages', 'check_dataset_cfg', 'check_image_folder',
    'check_same_classes'
]
