# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generation of many images into a folder, by several processes and across interruptions."""

from addp_mm.generation.image_folder.image_files import FORMATS, ImageFiles
from addp_mm.generation.image_folder.image_writers import ImageWriters
from addp_mm.generation.image_folder.npz_file import write_npz
from addp_mm.generation.image_folder.progress import Progress
from addp_mm.generation.image_folder.write_batches import BatchWriter, missing_batches

__all__ = ['FORMATS', 'BatchWriter', 'ImageFiles', 'ImageWriters', 'Progress', 'missing_batches', 'write_npz']
