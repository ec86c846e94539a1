# Copyright (c) addp_mm contributors. Apache-2.0.
"""The class-conditional configs: what differs from the others, and short runs of the nano ones."""

import copy
import importlib.util
import json

import numpy as np
import pytest
import torch
from helpers.recipes import CONFIGS, build_on_meta, load_recipe, recipe_scope, without_checkpoints
from PIL import Image

from addp_mm.datasets.tokens.token_store import TokenWriter

SCHEDULE = '8xb64-accum8-bf16-coslr-1600e_in1k-256px'
NANO = dict(
    predictor='pretrain/token-predictor_nano-p8{}_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py',
    addp='pretrain/addp_vit-nano-p8{}_2xb16-fp32-4k_fashion-scenes-64px.py',
)
LARGE = dict(
    predictor=f'pretrain/token-predictor_vit-base-p16{{}}_from-ids_{SCHEDULE}.py',
    addp=f'pretrain/addp_vit-base-p16{{}}_{SCHEDULE}.py',
)
GARMENTS = ['ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser']


def pair(names, stage):
    """The class-conditional config and the one without classes."""
    return load_recipe(names[stage].format('_class-cond')), load_recipe(names[stage].format(''))


def spaces(cfg):
    parts = ('predictor', 'neck', 'head')
    return [cfg.model[part].token_space.to_dict() for part in parts if part in cfg.model]


def without_classes(cfg):
    """The model without what classes change."""
    model = cfg.model.to_dict()
    model.pop('class_drop_rate', None)
    for part in ('predictor', 'neck', 'head'):
        model.get(part, {}).pop('token_space', None)
    model['predictor'].pop('init_cfg', None)
    return model


@pytest.mark.parametrize('names, classes', [(NANO, 10), (LARGE, 1000)], ids=['nano', 'large'])
@pytest.mark.parametrize('stage', NANO)
def test_only_the_classes_differ(names, classes, stage):
    cfg, plain = pair(names, stage)
    sizes = dict(num_class_slots=classes + 1, fake_class_slot=classes, num_classes=classes)
    for space in spaces(cfg):
        assert {key: space[key] for key in sizes} == sizes
        assert space.get('codebook_size', 1024) == (512 if classes == 10 else 1024)
    assert cfg.model.class_drop_rate == 0.1
    assert without_classes(cfg) == without_classes(plain)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'randomness', 'default_hooks'):
        assert cfg[key] == plain[key], key
    model = build_on_meta(without_checkpoints(cfg))
    assert model.num_classes == classes
    assert build_on_meta(without_checkpoints(plain)).num_classes == 0


def test_the_nano_addp_loads_the_predictor_of_the_package():
    start = pair(NANO, 'addp')[0].model.predictor.init_cfg
    assert start.checkpoint == 'addp_mm://token-predictor_nano-p8_class-cond.safetensors'
    assert start.strict
    assert 'prefix' not in start


def test_the_large_addp_loads_the_last_checkpoint_of_the_predictor():
    start = pair(LARGE, 'addp')[0].model.predictor.init_cfg
    name = LARGE['predictor'].format('_class-cond').removeprefix('pretrain/').removesuffix('.py')
    assert start.checkpoint == f'work_dirs/{name}/epoch_1600.pth'
    assert (start.prefix, start.strict) == ('predictor.', True)


def test_garments_are_those_of_the_classifier_in_the_order_of_the_folders():
    ids, addp = pair(NANO, 'predictor')[0], pair(NANO, 'addp')[0]
    assert ids.train_dataloader.dataset.labels.classes == ids.test_dataloader.dataset.labels.classes == GARMENTS
    assert addp.train_dataloader.dataset.metainfo.classes == GARMENTS == sorted(GARMENTS)
    assert addp.train_dataloader.dataset.with_label
    cls = next((CONFIGS / 'cls').glob('addp-vit-nano-p8_ft_*.py'))
    assert load_recipe(cls).train_dataloader.dataset.metainfo.classes == GARMENTS


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Twenty images in the folders of the ten garments, and ids with their classes."""
    folder, rng = tmp_path_factory.mktemp('classes'), np.random.default_rng(0)
    for index in range(20):
        path = folder / f'objects/train/{GARMENTS[index // 2]}/{index:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    settings = dict(
        tokenizer={},
        images=dict(count=20),
        views=dict(image_size=64, augmentation='flip', count=2),
        labels=dict(classes=GARMENTS, fingerprint='f'),
        shard=dict(index=0, of=1),
    )
    writer = TokenWriter(folder / 'ids', settings, (20, 2, 64), 'uint16', np.arange(20) // 2)
    writer.write(rng.integers(0, 512, (20, 2, 64)), {})
    writer.save()
    return folder


def small(cfg, data, work_dir):
    """A config with the small data, for two iterations of four images."""
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(data / 'ids') if 'labels' in dataset else str(data)
    dataset.pop('tokenizer', None)
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_iters, cfg.work_dir, cfg.log_level = 2, str(work_dir), 'WARNING'
    # mmengine reuses the visualizer of an earlier run of the same name
    name = f'classes_{work_dir.name}'
    cfg.experiment_name, cfg.visualizer = (
        name,
        dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name=name),
    )
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.custom_hooks = [dict(type='addp_mm.PreflightHook')]
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key, None)
    return cfg


def train(cfg):
    from mmengine.runner import Runner

    with recipe_scope(cfg):
        runner = Runner.from_cfg(copy.deepcopy(cfg))
        runner.train()
    return runner.model


@pytest.mark.slow
def test_predictor_and_addp_train_one_after_the_other_and_load_again(data, tmp_path):
    """The predictor's checkpoint is that of ADDP's start; ADDP's export is loaded and generates."""
    from addp_mm.apis import generate, load_model

    predictor = train(small(pair(NANO, 'predictor')[0], data, tmp_path / 'predictor'))
    cfg = small(pair(NANO, 'addp')[0], data, tmp_path / 'addp')
    cfg.model.predictor.init_cfg.update(checkpoint=str(tmp_path / 'predictor/iter_2.pth'), prefix='predictor.')
    model = train(cfg)
    for name, value in predictor.predictor.state_dict().items():
        assert torch.equal(model.predictor.state_dict()[name], value), name
    (log,) = (tmp_path / 'addp').rglob('vis_data/scalars.json')
    assert all(np.isfinite(json.loads(line)['loss']) for line in log.read_text().splitlines())

    spec = importlib.util.spec_from_file_location('export', CONFIGS.parent / 'tools/model_converters/export_weights.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([str(tmp_path / 'addp/iter_2.pth'), str(tmp_path / 'addp.safetensors')])
    loaded = load_model(cfg, tmp_path / 'addp.safetensors')
    assert generate(loaded, 1, num_steps=2).images.shape == (1, 3, 64, 64)
    assert loaded.num_classes == 10
    ids, mask = torch.zeros(2, 64, dtype=torch.long), torch.ones(2, 64, dtype=torch.bool)
    both = loaded.expected_latents(ids, mask, torch.tensor([0, 9]))
    assert not torch.equal(both[0], both[1])
    assert torch.equal(loaded.expected_latents(ids, mask), loaded.expected_latents(ids, mask, torch.tensor([-1, -1])))


def test_the_nano_models_refuse_data_without_labels_and_too_many_classes(data, tmp_path):
    """As in tools/train.py and addp check, before the first iteration."""
    from addp_mm.checks.preflight_error import PreflightError
    from addp_mm.diffusion.token_space import ClassLabelError

    cfg = small(without_checkpoints(pair(NANO, 'addp')[0]), data, tmp_path)
    cfg.train_dataloader.dataset.with_label = False
    with pytest.raises(ClassLabelError, match=r'the model has 10 classes .* a training image has no label'):
        train(cfg)
    cfg.train_dataloader.dataset.with_label = True
    for part in ('predictor', 'neck', 'head'):
        cfg.model[part].token_space.num_classes = 9
    with pytest.raises(PreflightError, match=r'10 classes .* the model has only 9: set num_classes=10 .* at least 11'):
        train(cfg)
