# Copyright (c) addp_mm contributors. Apache-2.0.
"""Contestants: short schedules, moved data, common sizes, inputs, and listings."""

from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from addp_mm.benchmark.choose_data import choose_data
from addp_mm.benchmark.contestants import Contestant, common_size
from addp_mm.benchmark.data_folder import data_options, data_root
from addp_mm.benchmark.listing import read_listing, read_listings
from addp_mm.benchmark.short_schedule import last_checkpoint, short_schedule
from addp_mm.benchmark.tasks import DATA, TASKS
from addp_mm.config.config_file import load_config
from addp_mm.config.shipped import config_path
from addp_mm.errors import ConfigError

DET = DATA['fashion_scenes'].bases['det']


def test_every_base_is_shipped_and_has_its_task():
    scopes = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmseg': 'seg'}
    for data in DATA.values():
        for task, base in data.bases.items():
            assert scopes[load_config(base).default_scope] == task
    assert set(scopes.values()) == set(TASKS)


def test_shipped_listing_compares_the_same_schedule():
    for data, entries in read_listings([]).items():
        for task in TASKS:
            configs = [load_config(str(entry.config(task))) for entry in entries.values() if task in entry.configs]
            for cfg in configs[1:]:
                for key in ('train_cfg', 'param_scheduler', 'test_dataloader'):
                    assert cfg[key] == configs[0][key], (data, task, cfg.filename)
                assert cfg.train_dataloader.batch_size == configs[0].train_dataloader.batch_size


def test_data_are_chosen_by_task():
    assert choose_data([], ['det', 'cls']) == [('coco', 'det'), ('imagenet', 'cls')]
    assert choose_data(['fashion_scenes'], []) == [('fashion_scenes', task) for task in TASKS]
    assert choose_data(['coco', 'fashion_scenes'], ['det']) == [('coco', 'det'), ('fashion_scenes', 'det')]
    with pytest.raises(ConfigError, match='--data coco: it has only the task det, which --task leaves out'):
        choose_data(['coco', 'ade20k'], ['seg'])


def test_data_move_with_their_annotations():
    cfg = load_config(DET)
    assert data_root(cfg) == 'data/fashion_scenes'
    assert data_options(cfg, '/new', ['train', 'test']) == [
        'train_dataloader.dataset.data_root=/new/',
        'test_dataloader.dataset.data_root=/new/',
        'test_evaluator.ann_file=/new/annotations/instances_val.json',
    ]
    moved = load_config(DET, data_options(cfg, '/new', ['test']))
    assert moved.test_evaluator.ann_file == '/new/annotations/instances_val.json'


@pytest.mark.parametrize('name', [base for data in DATA.values() for base in data.bases.values()])
def test_a_schedule_is_shortened_to_its_last_checkpoint(name):
    cfg = load_config(name)
    shortened = load_config(name, short_schedule(cfg, 30))
    if 'max_epochs' in cfg.train_cfg:
        assert last_checkpoint(shortened, 30) == 'epoch_1.pth' == last_checkpoint(shortened)
        assert shortened.train_dataloader.dataset.indices == 30 * cfg.train_dataloader.batch_size
    else:
        assert last_checkpoint(shortened) == last_checkpoint(cfg, 30) == 'iter_30.pth'


def test_joined_data_sets_cannot_be_shortened():
    joined = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[]))
    cfg = Config(dict(train_cfg=dict(max_epochs=3), train_dataloader=dict(batch_size=2, dataset=joined)))
    with pytest.raises(ConfigError, match='train_dataloader.dataset.dataset joins several data sets'):
        short_schedule(cfg, 3)
    joined['dataset'] = dict(type='CocoDataset')
    cfg = Config(dict(train_cfg=dict(max_epochs=3), train_dataloader=dict(batch_size=2, dataset=joined)))
    assert 'train_dataloader.dataset.dataset.indices=6' in short_schedule(cfg, 3)


def test_contestants_are_measured_with_the_same_images():
    cfg = load_config(DET)
    one = Contestant('fashion_scenes', 'det', 'one', 'One', Path(config_path(DET)))
    assert common_size([(one, cfg), (one, cfg)], None, None) == (16, (64, 64))
    other = load_config(DET, ['train_dataloader.batch_size=8'])
    pair = [(one, cfg), (replace(one, backbone='two'), other)]
    with pytest.raises(ConfigError, match=r'the configs of one and two differ \(16 and 8\): add --batch-size'):
        common_size(pair, None, None)
    assert common_size(pair, 4, (96, 64)) == (4, (96, 64))


def test_a_training_depends_on_weights_and_data(small_scenes, tmp_path):
    weights = tmp_path / 'a.pth'
    weights.touch()
    base = config_path(DET.replace('from-scratch', 'ft'))
    ours = Contestant('fashion_scenes', 'det', 'one', 'One', Path(base), root=small_scenes)
    inputs = ours.finetuning(ours.load(), 0, tmp_path).inputs
    assert [path.name for path in inputs] == ['addp_nano-p8.safetensors', 'fashion_scenes.json']
    own = replace(ours, options=(f'model.backbone.init_cfg.checkpoint={weights}',))
    train, test = own.finetuning(own.load(), 0, tmp_path, max_iters=5).steps()
    assert weights in train.inputs
    assert f'model.backbone.init_cfg.checkpoint={weights}' in train.command
    assert 'train_cfg.max_iters=5' in train.command
    assert 'train_cfg.max_iters=5' not in test.command
    assert train.outputs[0].name == 'iter_5.pth' == Path(test.command[2]).name


@pytest.mark.parametrize(
    'content, message',
    [
        ('a: [', 'is not YAML'),
        ('- a', r'a mapping is expected \(data sets\), not list'),
        ('cocoo: {a: {det: x}}', 'data set cocoo is unknown; did you mean coco'),
        ('coco: {a: {dett: x}}', 'coco: a: task dett is unknown; did you mean det'),
        ('coco: {a: {title: x}}', 'coco: a has no config; give one for det'),
        ('coco: {a: det}', r'a mapping is expected \(coco: a: configs by task\), not str'),
    ],
)
def test_faulty_listings_are_refused(tmp_path, content, message):
    path = tmp_path / 'listing.yml'
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_listing(path)


def test_a_listing_names_its_own_and_shipped_configs(tmp_path):
    (tmp_path / 'own.py').touch()
    path = tmp_path / 'listing.yml'
    path.write_text(f'fashion_scenes: {{a: {{cls: own.py, det: {DET}, seg: none.py}}}}')
    entry = read_listing(path)['fashion_scenes']['a']
    assert entry.title == 'a'
    assert entry.config('cls') == tmp_path / 'own.py'
    assert entry.config('det') == Path(config_path(DET))
    with pytest.raises(ConfigError, match='none.py does not exist, and addp_mm ships no config none'):
        entry.config('seg')
