# Copyright (c) addp_mm contributors. Apache-2.0.
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn

from addp_mm.engine.hooks.drawn_images_hook import DrawnImagesHook, image_name


class Visualizer:
    """Keeps the images to draw."""

    def __init__(self) -> None:
        self.drawn = {}

    def visualize_cls(self, image, data_sample, out_file):
        self.drawn[out_file] = image[0, 0].tolist()


@pytest.mark.parametrize('to_rgb, colour', [(True, [3, 2, 1]), (False, [1, 2, 3])])
def test_colours_are_in_the_order_that_is_drawn(tmp_path, to_rgb, colour):
    model = nn.Module()
    model.data_preprocessor = ClsDataPreprocessor(to_rgb=to_rgb)
    runner = SimpleNamespace(
        model=model,
        visualizer=Visualizer(),
        test_loop=SimpleNamespace(
            dataloader=SimpleNamespace(dataset=SimpleNamespace(data_root=str(tmp_path / 'data')))
        ),
    )
    image = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    sample = DataSample(metainfo=dict(img_path=str(tmp_path / 'data/val/cat/0.jpg')))
    DrawnImagesHook(str(tmp_path / 'out')).after_test_iter(runner, 0, dict(inputs=[image]), [sample])
    assert runner.visualizer.drawn == {str(tmp_path / 'out/val/cat/0.jpg.png'): colour}


def test_drawn_images_have_the_paths_of_their_images():
    inside, outside = (DataSample(metainfo=dict(img_path=path)) for path in ('/data/val/a.png', '/other/a.png'))
    assert str(image_name(inside, '/data')) == 'val/a.png'
    assert str(image_name(outside, '/data')) == 'other/a.png'
    assert str(image_name(DataSample(metainfo=dict(sample_idx=7)), None)) == '7.png'
