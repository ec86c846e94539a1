# Copyright (c) addp_mm contributors. Apache-2.0.
"""The nano VOLO recipes through the tools, and a training with label maps that the tool wrote."""

import json

import pytest
from helpers.run_tools import ROOT

from addp_mm.datasets.token_labels.stored_maps import StoredMaps

pytestmark = pytest.mark.slow
RECIPES = {
    'cls': 'cls/volo-nano_from-scratch_1xb32-fp32-300i_fashion-scenes-64px.py',
    'token-label': 'cls/volo-nano_token-label_1xb32-fp32-300i_fashion-scenes-64px.py',
    'det': 'det/mask-rcnn_volo-nano_from-scratch_1xb16-fp32-300i_fashion-scenes-64px.py',
    'seg': 'seg/upernet_volo-nano_from-scratch_1xb16-fp32-400i_fashion-scenes-64px.py',
}
SHORT = """
_base_ = {base!r}
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root={scenes!r}))
train_dataloader = val_dataloader = test_dataloader = loader
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=2)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
ANNOTATIONS = """
val_evaluator = test_evaluator = dict(ann_file={scenes!r} + 'annotations/instances_val.json')
"""
MAPS = """
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(label_maps={maps!r}, images={scenes!r} + 'objects/train')
train_dataloader = dict(loader, dataset=dict(data_root={scenes!r}, pipeline=train_pipeline))
"""


@pytest.fixture(scope='module')
def nano(workplace, run_tool, small_scenes):
    """Write a short recipe, train it and test its checkpoint; returns the metrics and the log."""
    (workplace / 'volo').mkdir()

    def run(task: str, more: str = '', **values: str):
        scenes = f'{small_scenes}/'
        text = (SHORT + more).format(base=str(ROOT / 'configs' / RECIPES[task]), scenes=scenes, **values)
        (workplace / f'volo/{task}.py').write_text(text)
        trained = run_tool('train.py', f'volo/{task}.py', '--work-dir', f'volo/{task}')
        assert trained.status == 0, trained.output
        tested = run_tool('test.py', f'volo/{task}.py', f'volo/{task}/iter_2.pth', '--work-dir', f'volo/{task}')
        assert tested.status == 0, tested.output
        return json.loads((workplace / f'volo/{task}/metrics.json').read_text()), trained.output

    return run


@pytest.mark.parametrize(
    'task, more, metric', [('det', ANNOTATIONS, 'coco/bbox_mAP'), ('seg', '', 'mIoU')], ids=['det', 'seg']
)
def test_dense_recipes_train_and_test(nano, task, more, metric):
    metrics, _ = nano(task, more)
    assert metric in metrics


def test_label_maps_of_a_trained_classifier_train_another_one(nano, workplace, run_tool, small_scenes):
    metrics, _ = nano('cls')
    assert 'accuracy/top1' in metrics
    images, maps = small_scenes / 'objects/train', workplace / 'volo/label_maps'
    written = run_tool(
        *('label_maps.py', 'volo/cls.py', 'volo/cls/iter_2.pth', images, '--out', maps, '--num-workers', '0'),
        HOME=str(workplace),
    )
    assert written.status == 0, written.output
    assert "is that of the image's folder for" in written.output
    assert (len(StoredMaps(maps)), StoredMaps(maps).files.about['map_size']) == (10, [8, 8])
    metrics, log = nano('token-label', MAPS, maps=str(maps))
    assert 'accuracy/top1' in metrics
    assert 'loss_token' in log


def test_a_training_without_its_label_maps_names_the_tool(workplace, run_tool, small_scenes):
    (workplace / 'no_maps.py').write_text(
        (SHORT + MAPS).format(
            base=str(ROOT / 'configs' / RECIPES['token-label']), scenes=f'{small_scenes}/', maps='no_maps'
        )
    )
    finished = run_tool('train.py', 'no_maps.py', '--work-dir', 'no_maps_run')
    assert finished.status == 1
    assert 'error: no_maps: there are no label maps. Write them: addp label-maps' in finished.output
