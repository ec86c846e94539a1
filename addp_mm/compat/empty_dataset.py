# Copyright (c) addp_mm contributors. Apache-2.0.
"""A dataset of mmengine without images."""

from typing import Any

from addp_mm.compat.importing import replace_method
from addp_mm.errors import ConfigError


def patch_base_dataset(module: Any) -> bool:
    """Let mmengine's ``BaseDataset`` say why it has no image: its filter has dropped all of them.

    Args:
        module: ``mmengine.dataset.base_dataset``.

    Returns:
        Whether an empty dataset fails with an error of numpy.
    """
    dataset = object.__new__(module.BaseDataset)
    dataset.data_list = []
    try:
        dataset._serialize_data()  # mmengine's method with the fault
    except ValueError:
        replace_method(module.BaseDataset, '_serialize_data', _make_serialize)
        return True
    return False


def _make_serialize(original):

    def _serialize_data(self):
        if self.data_list:
            return original(self)
        name, source = type(self).__name__, getattr(self, 'ann_file', '') or getattr(self, 'data_root', '')
        listed = len(self.load_data_list())
        if not listed:
            raise ConfigError(f'{name} on {source}: no image. Check ann_file, data_root and data_prefix')
        raise ConfigError(
            f'{name} on {source}: none of {listed} images is left after the filter. Lower or remove the limits in '
            f'filter_cfg={getattr(self, "filter_cfg", None)!r}, such as filter_cfg.min_size, or correct the annotations'
        )

    return _serialize_data
