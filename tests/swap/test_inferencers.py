# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inferencers of three packages with our configs: built in one default scope, called in another.

mmpretrain#1839: an Inferencer builds collation, visualizer and pipeline later, in the default scope
of that moment.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.datasets import LoadImage

CONFIGS = Path(__file__).parents[2] / 'configs'


def config_of(task: str) -> str:
    (path,) = (CONFIGS / task).glob('*nano-p8_from-scratch_*.py')
    return str(path)


def segment(folder: Path):
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(config_of('seg'), device='cpu')
    return lambda image: inferencer(image, out_dir=str(folder))['predictions']


def detect(folder: Path):
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(config_of('det'), device='cpu', show_progress=False)
    return lambda image: np.array(inferencer(image, out_dir=str(folder))['predictions'][0]['bboxes'])


def classify(folder: Path):
    from mmpretrain import ImageClassificationInferencer

    inferencer = ImageClassificationInferencer(config_of('cls'), device='cpu')
    return lambda image: inferencer(image, show_dir=str(folder))[0]['pred_scores']


@pytest.mark.slow
@pytest.mark.parametrize(
    'make, own, others',
    [
        (segment, 'mmseg', ('mmpretrain', 'mmdet')),
        (detect, 'mmdet', ('mmseg', 'mmpretrain')),
        (classify, 'mmpretrain', ('addp_mm', 'mmseg')),
    ],
)
def test_an_inferencer_is_the_same_under_any_default_scope(make, own, others, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    results = []
    for building, calling in ((own, own), others):
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(building):
            infer = make(tmp_path / building)
        with DefaultScope.overwrite_default_scope(calling):
            results.append(infer(image))
            assert DefaultScope.get_current_instance().scope_name == calling
    assert len(results[0])
    np.testing.assert_array_equal(*results)
    images = [
        {path.name for path in (tmp_path / name).rglob('*') if path.suffix in ('.png', '.jpg')}
        for name in (own, others[0])
    ]
    assert images[0] == images[1] != set()


@pytest.mark.slow
def test_the_nano_classifier_resizes_images_of_other_sizes_only(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.shape(classify(tmp_path)(values[:50])) == (10,)
    Image.fromarray(values).save(tmp_path / 'a.png')
    steps = Config.fromfile(config_of('cls')).test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        seen = Compose(steps)(dict(img_path=str(tmp_path / 'a.png')))['inputs'].numpy()
    np.testing.assert_array_equal(seen.transpose(1, 2, 0)[..., ::-1], values)


def detector():
    from mmdet.apis import inference_detector, init_detector

    return init_detector(config_of('det'), device='cpu'), inference_detector, 'pred_instances'


def segmentor():
    from mmseg.apis import inference_model, init_model

    return init_model(config_of('seg'), device='cpu'), inference_model, 'pred_sem_seg'


@pytest.mark.slow
@pytest.mark.parametrize('makers', [(segmentor, detector), (detector, segmentor)])
def test_a_detector_and_a_segmentor_side_by_side_take_files_and_arrays(makers, tmp_path):
    """The Inferencer that was built last sets the default scope of the process."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    with DefaultScope.overwrite_default_scope('mmengine'):
        built = [make() for make in makers]
        scope = DefaultScope.get_current_instance().scope_name
        for given in (str(tmp_path / 'a.png'), image):
            for model, infer, field in built:
                assert field in infer(model, given)
        assert DefaultScope.get_current_instance().scope_name == scope


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
@pytest.mark.parametrize('by_name', [True, False])
def test_an_inferencer_reads_transparent_files_as_training_does(task, by_name, tmp_path):
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    inferencer, scope = (DetInferencer, 'mmdet') if task == 'det' else (MMSegInferencer, 'mmseg')
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    values[:32, :, 3] = 0
    Image.fromarray(values).save(tmp_path / 'a.png')
    cfg = Config.fromfile(config_of(task))
    for split in ('train', 'val', 'test'):
        assert 'addp_mm.LoadImage' in [step.type for step in cfg[f'{split}_dataloader'].dataset.pipeline]
    if not by_name:
        cfg.test_dataloader.dataset.pipeline[0].type = LoadImage
    with DefaultScope.overwrite_default_scope(scope):
        pipeline = inferencer._init_pipeline(inferencer.__new__(inferencer), cfg)
    (loaded, given) = (pipeline(one)['inputs'].numpy() for one in (str(tmp_path / 'a.png'), values[..., :3]))
    np.testing.assert_array_equal(loaded, LoadImage()(dict(img_path=tmp_path / 'a.png'))['img'].transpose(2, 0, 1))
    assert (loaded[:, :32] == 255).all()
    np.testing.assert_array_equal(given, values[..., :3].transpose(2, 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_an_inferencer_with_the_stock_loader_is_unchanged(task):
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    inferencer, scope = (DetInferencer, 'mmdet') if task == 'det' else (MMSegInferencer, 'mmseg')
    cfg = Config.fromfile(config_of(task))
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    with DefaultScope.overwrite_default_scope(scope):
        pipeline = inferencer._init_pipeline(inferencer.__new__(inferencer), cfg)
    assert type(pipeline.transforms[0].from_file).__name__ == 'LoadImageFromFile'
