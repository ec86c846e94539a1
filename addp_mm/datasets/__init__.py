# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.datasets.checks import DatasetError, check_dataset_cfg, check_image_folder
from addp_mm.datasets.load_image import LoadImage
from addp_mm.datasets.token_ids import TokenIds
from addp_mm.datasets.token_store import TokenStoreError

__all__ = ['DatasetError', 'LoadImage', 'TokenIds', 'TokenStoreError', 'check_dataset_cfg', 'check_image_folder']
