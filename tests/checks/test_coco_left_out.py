# Copyright (c) addp_mm contributors. Apache-2.0.
"""Faulty annotations are left out of training up to a share, and never out of validation."""

import json
from pathlib import Path

import pytest
from helpers.checked_data import BASES, change_json
from mmengine.config import Config
from mmengine.registry import init_default_scope

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.coco_left_out import leave_out_faulty
from addp_mm.checks.datasets import check_datasets
from addp_mm.checks.tolerance import broken_share, sample_seconds
from addp_mm.datasets import DatasetError

BOTH = ('train_dataloader', 'val_dataloader')
NAN, INF = float('nan'), float('inf')
FAULTS = {
    'NaN': (dict(bbox=[NAN, 1, 2, 3]), 'has the bbox [nan, 1, 2, 3]'),
    'Inf': (dict(bbox=[1, 1, 2, INF]), 'has the bbox [1, 1, 2, inf]'),
    'negative': (dict(bbox=[1, 1, -2, 3]), 'whose size is negative'),
    'area 0': (dict(area=0), 'and the area 0: it covers no pixel'),
    'width 0': (dict(bbox=[1, 1, 0, 3]), 'it covers no pixel'),
    'outside': (dict(bbox=[70, 1, 5, 5]), 'has the bbox [70, 1, 5, 5] outside of its image, which is 64 wide'),
    'left of it': (dict(bbox=[-9, 1, 5, 5]), 'outside of its image'),
    'category': (dict(category_id=99), 'has the category_id 99, which the file lacks'),
    'image': (dict(image_id=99), 'has the image_id 99, which the file lacks'),
    'polygon': (dict(segmentation=[[1, 2, NAN, 4, 5, 6]]), 'has nan in a polygon'),
    'RLE': (dict(segmentation=dict(size=[64, 64], counts=[5])), 'has an RLE of 5 pixels'),
    'flag': (dict(iscrowd='0'), "has the iscrowd '0'; it must be 0 or 1"),
}


def content_of(*changes, whole=3):
    box = dict(bbox=[1, 1, 8, 8], area=64, iscrowd=0, segmentation=[[1, 1, 9, 1, 9, 9]])
    annotations = [dict(box, id=k, image_id=1, category_id=1) for k in range(whole + len(changes))]
    for annotation, change in zip(annotations, changes, strict=False):
        annotation.update(change)
    return dict(
        images=[dict(id=1, file_name='a.png', width=64, height=64)],
        categories=[dict(id=1, name='shirt')],
        annotations=annotations,
    )


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_is_left_out_and_named(fault, monkeypatch):
    words = []
    monkeypatch.setattr('addp_mm.checks.coco_left_out.print_log', lambda text, *_: words.append(text))
    change, text = FAULTS[fault]
    content = content_of(change)
    left, count = leave_out_faulty(Path('a.json'), content, True, 0.001)
    assert count == 1
    assert left['annotations'] == content['annotations'][1:]
    assert words[0].startswith('a.json: 1 of 4 annotations are faulty: annotations[0] (id 0) ')
    assert text in words[0]


@pytest.mark.parametrize(
    'change',
    [dict(bbox=[60, 60, 9, 9]), dict(iscrowd=1), dict(category_id='1'), dict(image_id='1'), dict(bbox=[1, 1, 0.5, 3])]
    + [dict(ignore=1, bbox=[70, 1, 5, 5]), dict(area=None), dict(segmentation=[[1, 1, 2, 2]])],
)
def test_what_mmdet_can_use_or_leaves_out_itself_stays(change):
    content = content_of(change)
    assert leave_out_faulty(Path('a.json'), content, True, 0) == (content, 0)


def test_above_the_share_the_file_is_refused_with_the_list():
    content = content_of(*[dict(area=0)] * 12, whole=988)
    with pytest.raises(DatasetError, match='12 of 1000 annotations are faulty: .*default_hooks.broken_samples') as info:
        leave_out_faulty(Path('a.json'), content, True, 0.001)
    assert str(info.value).count('it covers no pixel') == 12
    assert leave_out_faulty(Path('a.json'), content, True, 0.002)[1] == 12
    with pytest.raises(DatasetError, match='2 of 2 annotations are faulty'):
        leave_out_faulty(Path('a.json'), content_of(*[dict(area=0)] * 2, whole=0), True, 0.001)


def test_the_share_and_the_time_limit_are_those_of_the_hook():
    assert broken_share({}) == broken_share(dict(default_hooks=dict(broken_samples=dict(type='X')))) == 0.001
    assert broken_share(dict(default_hooks=dict(broken_samples=dict(max_broken_share=0.1)))) == 0.1
    assert broken_share(dict(default_hooks=dict(broken_samples=None))) is None
    assert sample_seconds({}) == sample_seconds(dict(default_hooks=dict(broken_samples=None))) == 120
    given = [sample_seconds(dict(default_hooks=dict(broken_samples=dict(sample_seconds=n)))) for n in (3, 0, -1, 'a')]
    assert given == [3, 0, 120, 120]


@pytest.fixture
def cfg(own_set):
    init_default_scope('mmdet')
    cfg = Config.fromfile(BASES / 'fashion_scenes_det.py')
    for loader in BOTH:
        cfg[loader].dataset.data_root = str(own_set)
    cfg.val_evaluator.ann_file = f'{own_set}/annotations/instances_val.json'
    return cfg


def spoil(path, change):
    change_json(path, lambda content: content['annotations'][0].update(change))


def test_training_reads_a_copy_without_them(cfg, own_set, tmp_path):
    path = own_set / 'annotations/instances_train.json'
    before = json.loads(path.read_text())['annotations']
    spoil(path, dict(bbox=[NAN, 1, 2, 3]))
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    copy = cfg.train_dataloader.dataset.ann_file
    assert copy == str(tmp_path / 'train_instances_train.json')
    with open(copy) as file:
        assert [one['id'] for one in json.load(file)['annotations']] == [one['id'] for one in before[1:]]
    # the copy of a copy is the same
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path / 'again')
    assert cfg.train_dataloader.dataset.ann_file == copy


@pytest.mark.parametrize('off', [False, True])
def test_validation_is_strict_and_so_is_training_without_the_hook(cfg, own_set, tmp_path, off):
    if off:
        cfg.default_hooks = dict(broken_samples=None)
    spoil(own_set / f'annotations/instances_{"train" if off else "val"}.json', dict(bbox=[NAN, 1, 2, 3]))
    with pytest.raises(DatasetError, match=r'annotations\[0\] .*nan'):
        check_datasets(cfg, *BOTH, repaired_dir=tmp_path)


@pytest.mark.parametrize('how', ['gone', 'damaged'])
def test_a_resumed_training_may_have_lost_images(cfg, own_set, tmp_path, how):
    image = sorted(own_set.glob('scenes/train/*.png'))[0]
    image.unlink()
    if how == 'damaged':
        image.write_bytes(b'no image')
    with pytest.raises(DatasetError, match=image.name):
        check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    cfg.resume = True
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    sorted(own_set.glob('scenes/val/*.png'))[0].unlink()
    with pytest.raises(DatasetError, match='of its .* images are not in .*val'):
        check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
