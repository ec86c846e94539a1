# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every config is tested: by the tests of its family, or by reading and building it here."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from helpers.recipes import CONFIGS, build_on_meta, build_recipe, load_recipe, recipe_paths

from addp_mm.checks.unknown_arguments import check_config
from addp_mm.config.type_names import type_name

ROOT = Path(__file__).parents[2]
TASKS = ('pretrain', 'cls', 'det', 'seg', 'align')
EVERY = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.relative_to(CONFIGS).parts)


def model_zoo_tool():
    spec = importlib.util.spec_from_file_location('model_zoo', ROOT / '.dev/model_zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(task: str) -> set[Path]:
    """Configs that a test module gets from ``recipe_paths``, read from its source."""
    source = (Path(__file__).parent / f'test_{task}_recipes.py').read_text()
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'recipe_paths'
    ]
    return {
        path
        for call in calls
        if all(isinstance(argument, ast.Constant) for argument in call.args)
        for path in recipe_paths(*(argument.value for argument in call.args))
    }


def families() -> set[Path]:
    """Configs that the tests of their folder read and check."""
    found = {path for task in TASKS for path in listed(task)}
    for task in ('cls', 'det', 'seg'):  # tests/configs/test_finetune_configs.py
        found |= {
            path
            for setting in ('ft', 'from-scratch')
            for path in (CONFIGS / task).glob(f'*addp-vit-nano-p8_{setting}_*')
        }
    return found


REST = [path for path in EVERY if path not in families()]


def test_configs_are_in_one_of_the_folders():
    assert {path.relative_to(CONFIGS).parts[:-1] for path in EVERY} == {(task,) for task in TASKS}


@pytest.mark.parametrize('task', TASKS)
def test_the_tests_of_each_family_cover_its_folder(task):
    assert listed(task)
    assert all(path.parent == CONFIGS / task for path in listed(task))


@pytest.mark.parametrize('path', REST, ids=lambda path: path.stem)
def test_the_rest_is_read_and_built(path):
    cfg = load_recipe(path)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    model = build_recipe(cfg) if 'nano' in path.stem else build_on_meta(cfg)
    assert any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize('path', EVERY, ids=lambda path: path.stem)
def test_every_recipe_seeds_its_iterations(path):
    cfg = load_recipe(path)
    assert cfg.default_hooks.random_state == dict(type='addp_mm.RandomStateHook')
    assert not [hook for hook in cfg.get('custom_hooks') or [] if hook.type == 'addp_mm.RandomStateHook']


def test_the_model_zoo_lists_every_config_once():
    """The page equals the output of .dev/model_zoo.py for the READMEs of the folders."""
    model_zoo = model_zoo_tool()
    page = model_zoo.PAGE.read_text()
    assert page == model_zoo.page(), 'run .dev/model_zoo.py'
    listed = re.findall(r'^\| \[.*?\]\(\.\./configs/(.*?)\) \|', page, re.M)
    assert sorted(listed) == [str(path.relative_to(CONFIGS)) for path in EVERY]
    # no number is listed as reproduced
    assert all(line.endswith('| |') for line in page.splitlines() if line.startswith('| ['))


def test_published_numbers_are_read_from_the_readmes():
    model_zoo = model_zoo_tool()
    name = 'mask-rcnn_mae-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py'
    assert model_zoo.published('det')[name] == ('51.6 / 45.9', 'detectron2, projects/ViTDet')
    name = 'addp_vit-large-p16_8xb32-accum16-bf16-coslr-800e_in1k-256px.py'
    assert model_zoo.published('pretrain')[name][0] == '7.6 / 105.1; 85.9'


@pytest.mark.parametrize(
    'name, start',
    [
        ('mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py', 'NNODES=2 tools/dist_train.sh {} 8'),
        # its learning rate is for 64 images per step, two per GPU, which mmdet's name does not
        # contain
        ('mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_ln-heads_lsj-100e_coco.py', 'NNODES=4 tools/dist_train.sh {} 8'),
        ('mask-rcnn_r50_fpn_1x_coco.py', 'tools/dist_train.sh {} 8'),
        ('mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py', 'python tools/train.py {}'),
    ],
)
def test_commands_start_as_many_gpus_as_the_learning_rate_is_for(name, start):
    assert model_zoo_tool().command(f'configs/det/{name}') == start.format(f'configs/det/{name}')


@pytest.mark.parametrize(
    'path',
    [path for path in EVERY if re.search(r'_\d+xb\d+', path.stem) and not path.stem.endswith('-ms')],
    ids=lambda path: path.stem,
)
def test_gpus_and_batch_of_the_name_are_those_of_the_learning_rate(path):
    """--auto-scale-lr changes nothing if a config runs with the GPUs and batch of its name."""
    cfg = load_recipe(path)
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)', path.stem).groups())
    assert cfg.train_dataloader.batch_size == batch
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch * accumulated


@pytest.mark.parametrize('path', EVERY, ids=lambda path: path.stem)
def test_workers_of_every_recipe_start_once(path):
    cfg = load_recipe(path)
    loaders = [cfg[name] for name in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(name)]
    assert loaders
    for loader in loaders:
        assert loader.num_workers > 0
        assert loader.persistent_workers
        assert loader.get('prefetch_factor', 2) >= 2
        # a batch is one tensor, which comes to the GPU faster from pinned memory
        if type_name(loader.dataset.type) == 'ImageNet':
            assert loader.pin_memory
