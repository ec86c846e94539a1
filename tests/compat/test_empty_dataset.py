# Copyright (c) addp_mm contributors. Apache-2.0.
"""The error of a dataset without images."""

from types import SimpleNamespace

import pytest
from helpers.modules import module_with

from addp_mm.compat.empty_dataset import patch_base_dataset
from addp_mm.errors import ConfigError


@pytest.mark.parametrize('listed', [0, 3])
def test_a_dataset_without_images_says_why(listed):
    from mmengine.dataset import BaseDataset

    class Small(BaseDataset):
        def load_data_list(self):
            return [dict(width=28)] * listed

        def filter_data(self):
            return [one for one in self.data_list if one['width'] >= self.filter_cfg['min_size']]

    def build(least):
        return Small(ann_file='a.json', data_root='', filter_cfg=dict(min_size=least))

    words = r'none of 3 images is left.*filter_cfg=\{.min_size.: 32\}' if listed else 'no image. Check ann_file'
    with pytest.raises(ConfigError, match=f'Small on a.json: {words}'):
        build(32)
    if listed:
        assert len(build(28)) == 3
    with pytest.raises(ValueError, match='need at least one array'):
        BaseDataset._serialize_data.__wrapped__(SimpleNamespace(data_list=[]))


def test_a_dataset_without_the_fault_stays():
    class BaseDataset:
        def _serialize_data(self):
            return None

    assert not patch_base_dataset(module_with(BaseDataset=BaseDataset))
