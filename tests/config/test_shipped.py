# Copyright (c) addp_mm contributors. Apache-2.0.
"""Shipped configs and tools by name, and the index that lists them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from modelindex.load_model_index import load as load_model_index

import addp_mm
from addp_mm.config import shipped
from addp_mm.config.config_file import load_config

ROOT = Path(__file__).parents[2]
CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
METAFILES = [ROOT / path for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']]
MODELS = [model for path in METAFILES for model in yaml.safe_load(path.read_text())['Models']]


@pytest.mark.parametrize(
    'name',
    [
        CLASSIFIER,
        f'{CLASSIFIER}.py',
        f'cls/{CLASSIFIER}',
        f'configs/cls/{CLASSIFIER}.py',
        f'addp_mm::cls/{CLASSIFIER}.py',
    ],
)
def test_a_config_is_found_by_name_or_by_path(name):
    assert addp_mm.config_path(name) == str(ROOT / f'configs/cls/{CLASSIFIER}.py')


def test_a_base_is_found_too():
    assert addp_mm.config_path('_base_/default_runtime') == str(ROOT / 'configs/_base_/default_runtime.py')


def test_similar_names_are_suggested():
    with pytest.raises(shipped.ShippedFileError, match=f'did you mean .*cls/{CLASSIFIER}'):
        addp_mm.config_path('addp-vit-nano-p8_ft_1xb32-fp32-200i_fashion-scenes-64px')
    with pytest.raises(shipped.ShippedFileError, match=r'no config §\. .*: addp list$'):
        addp_mm.config_path('§')
    with pytest.raises(shipped.ShippedFileError, match='did you mean pretrain/addp_vit-nano') as error:
        addp_mm.config_path('addp_vit-nano')
    assert '_base_' not in str(error.value)
    with pytest.raises(shipped.ShippedFileError, match='no script at trian.py.*did you mean train.py'):
        shipped.tool_path('trian.py')


def test_an_ambiguous_name_needs_the_folder(tmp_path, monkeypatch):
    for folder in ('a', 'b'):
        (tmp_path / 'configs' / folder).mkdir(parents=True)
        (tmp_path / 'configs' / folder / 'same.py').touch()
    monkeypatch.setattr(shipped, 'shipped_root', lambda: tmp_path)
    with pytest.raises(
        shipped.ShippedFileError, match='several configs: a/same, b/same. Give the name with its folder'
    ):
        addp_mm.config_path('same')
    assert addp_mm.config_path('b/same') == str(tmp_path / 'configs/b/same.py')


def test_a_package_without_configs_does_not_hide_others(tmp_path, monkeypatch):
    (tmp_path / 'configs').mkdir()  # that of another package
    monkeypatch.setattr(shipped, '_PACKAGE', tmp_path / 'addp_mm')
    with pytest.raises(shipped.ShippedFileError, match='was installed without its configs'):
        addp_mm.config_path(CLASSIFIER)
    with pytest.raises(ValueError, match='Cannot find model: no-such-model in mmdet'):
        by_name('no-such-model')


@pytest.mark.parametrize('name', ['train.py', 'tools/train.py', './tools/train.py'])
def test_a_tool_is_found(name):
    assert shipped.tool_path(name) == str(ROOT / 'tools/train.py')


def test_a_config_inherits_by_name_without_changing_scope(tmp_path):
    (tmp_path / 'mine.py').write_text(
        f"_base_ = 'addp_mm::cls/{CLASSIFIER}.py'\nhead = _base_.model.head\nmodel = dict(head=dict(num_classes=3))\n"
    )
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.model.head.num_classes == 3
    assert '_scope_' not in cfg.head
    assert cfg.head.type == 'LinearClsHead'
    (tmp_path / 'mine.py').write_text("_base_ = 'addp_mm::cls/nothing.py'\n")
    with pytest.raises(shipped.ShippedFileError, match='ships no config cls/nothing'):
        Config.fromfile(tmp_path / 'mine.py')


def test_tools_take_a_shipped_config():
    assert load_config(f'addp_mm::{CLASSIFIER}').filename == str(ROOT / f'configs/cls/{CLASSIFIER}.py')


def by_name(name: str):
    """Config and weights that an Inferencer of mmdet finds by a model's name."""
    return BaseInferencer._load_model_from_metafile(SimpleNamespace(scope='mmdet'), name)


def test_inferencers_find_the_models_of_the_index():
    cfg, weights = by_name('Mask-RCNN_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px')
    assert cfg.model.backbone.type == 'addp_mm.ADDPViT'
    assert weights is None
    cfg, weights = by_name('addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px')
    assert weights == 'addp_mm://addp_nano-p8.safetensors'
    assert by_name('mask-rcnn_r50_fpn_1x_coco')[1].startswith('https://')


def test_mmpretrain_lists_what_it_can_build():
    from mmpretrain import list_models

    listed = list_models('*fashion-scenes')
    assert CLASSIFIER in listed
    assert 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px' in listed
    assert not [name for name in listed if 'rcnn' in name or 'upernet' in name]
    assert 'resnet18_8xb16_cifar10' in list_models('resnet18')


def test_mmpretrain_infers_in_its_own_scope():
    from mmengine.registry import DefaultScope
    from mmpretrain import ImageClassificationInferencer, get_model

    with DefaultScope.overwrite_default_scope('mmseg'):
        inferencer = ImageClassificationInferencer(get_model(CLASSIFIER))
        assert DefaultScope.get_current_instance().scope_name == 'mmseg'
    assert len(inferencer(np.zeros((64, 64, 3), np.uint8))[0]['pred_scores']) == 10


def test_the_index_has_every_metafile():
    assert sorted(METAFILES) == sorted((ROOT / 'configs').rglob('metafile.yml'))


@pytest.mark.parametrize('metafile', METAFILES, ids=lambda path: path.parent.name)
def test_a_metafile_follows_the_format(metafile):
    index = load_model_index(str(metafile))
    index.build_models_with_collections()
    assert not [error for model in index.models for error in model.check_errors or []]


@pytest.mark.parametrize('model', MODELS, ids=lambda model: model['Name'])
def test_a_listed_model_exists(model):
    config = ROOT / model['Config']
    assert config.is_file()
    assert config.stem == model['Name']
    assert set(model.get('Downstream', [])) <= {other['Name'] for other in MODELS}
    weights = model.get('Weights') or ''
    if weights.startswith('addp_mm://'):
        assert (ROOT / 'addp_mm/assets' / weights.removeprefix('addp_mm://')).is_file()


def test_the_index_has_the_data_and_architecture_of_every_config():
    facts = {model['Config']: {'Training Data', 'Architecture'} <= set(model['Metadata']) for model in MODELS}
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('[!_]*/*.py')}
    assert facts == dict.fromkeys(configs, True)


def test_names_are_listed_once():
    names = [model['Name'].lower() for model in MODELS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.slow
def test_every_detector_and_segmentor_names_its_visualizer():
    """mmsegmentation's Inferencer refuses the default one, and mmdet's draws nothing with it."""
    for folder, visualizer in (('det', 'DetLocalVisualizer'), ('seg', 'SegLocalVisualizer')):
        types = {path.name: Config.fromfile(path).visualizer.type for path in (ROOT / 'configs' / folder).glob('*.py')}
        assert not {name: kind for name, kind in types.items() if not kind.endswith(visualizer)}


@pytest.mark.parametrize('name', [CLASSIFIER, f'cls/{CLASSIFIER}', f'addp_mm::{CLASSIFIER}'])
def test_a_shipped_config_is_loaded_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).filename == str(ROOT / f'configs/cls/{CLASSIFIER}.py')
