# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of the targets. It imports nothing: the fuzzer instruments what is imported later."""

#: Module and name of each target.
PLACES = {
    'checkpoint': ('checkpoints', 'CHECKPOINT'),
    'safetensors': ('checkpoints', 'SAFETENSORS'),
    'layouts': ('layouts', 'LAYOUT'),
    'images': ('images', 'IMAGE'),
    'tiff': ('images', 'TIFF'),
    'names': ('lists', 'NAMES'),
    'tar': ('lists', 'TAR'),
    'lmdb': ('lists', 'LMDB'),
    'tokens': ('folders', 'TOKENS'),
    'label_maps': ('folders', 'LABEL_MAPS'),
    'published_maps': ('folders', 'PUBLISHED_MAPS'),
    'npz': ('folders', 'NPZ'),
    'coco': ('annotations', 'COCO'),
    'coco_counts': ('annotations', 'COCO_COUNTS'),
    'options': ('texts', 'OPTIONS'),
    'pickle': ('data_files', 'PICKLE'),
    'data_config': ('data_files', 'DATA_CONFIG'),
    'literal_config': ('data_files', 'LITERAL_CONFIG'),
}
#: Packages whose coverage guides the fuzzer, besides addp_mm.
PACKAGES = {
    'images': ('PIL', 'numpy.lib'),
    'tiff': ('tifffile',),
    'tar': ('tarfile',),
    'tokens': ('numpy.lib',),
    'npz': ('numpy.lib', 'zipfile'),
}
#: Functions whose coverage guides it, too.
FUNCTIONS = {
    'checkpoint': ('torch._weights_only_unpickler.Unpickler.load',),
    'published_maps': ('torch._weights_only_unpickler.Unpickler.load',),
}
