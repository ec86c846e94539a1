# Copyright (c) addp_mm contributors. Apache-2.0.
"""Configs in JSON and YAML, and those inside checkpoints, are data."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import yaml
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, HOOKS, MODELS

from addp_mm.checks.unknown_types import refuse_unknown_type
from addp_mm.config import registered_types
from addp_mm.config.config_file import load_config
from addp_mm.config.data_config import write_data_config
from addp_mm.config.literal_text import literal_config
from addp_mm.config.plain_values import from_plain, to_plain
from addp_mm.engine.build_errors import name_sections
from addp_mm.errors import ConfigError

GOOD = dict(default_scope='mmengine', model=dict(type='torch.nn.Identity'), hooks=[dict(type='IterTimerHook')])


@pytest.fixture(autouse=True)
def _limits_end(monkeypatch):
    monkeypatch.setattr(registered_types, '_is_limited', False)


def written(tmp_path, values, name='x.json'):
    text = json.dumps(values) if name.endswith('.json') else yaml.dump(values)
    (tmp_path / name).write_text(text if not isinstance(values, str) else values)
    return str(tmp_path / name)


def test_values_come_back_as_they_were(tmp_path):
    values = dict(
        a=(1, (2.5, [3])), b={1: 'x', (2, 3): None}, c=dict(_tuple_=1), d=[dict(e=())], f=float('inf'), g=True, h='ä'
    )
    assert from_plain(json.loads(json.dumps(to_plain(values)))) == values
    for suffix in ('json', 'yaml', 'yml'):
        write_data_config(Config(dict(values)), str(tmp_path / f'x.{suffix}'))
        assert load_config(str(tmp_path / f'x.{suffix}')).to_dict() == values
    (tmp_path / 'y.py').write_text("_base_ = 'x.json'\nc = dict(z=2)\n")
    assert load_config(str(tmp_path / 'y.py')).a == (1, (2.5, [3]))
    assert to_plain(np.float64(2)) == 2
    with pytest.raises(ValueError, match='a.b is <function .* cannot hold'):
        to_plain(dict(a=dict(b=lambda: 0)))


def test_dumps_of_mmengine_are_read(tmp_path):
    same = dict(type='ReLU')
    Config(dict(model=dict(a=same, b=same, c=(1, 2)))).dump(tmp_path / 'x.yaml')
    assert '*id' in (tmp_path / 'x.yaml').read_text() or 'id0' not in (tmp_path / 'x.yaml').read_text()
    assert load_config(str(tmp_path / 'x.yaml')).model.c == (1, 2)


@pytest.mark.parametrize('suffix', ['json', 'yaml'])
def test_the_copy_in_a_work_dir_has_the_same_values(tmp_path, suffix):
    values = dict(a=(1, (2.5,)), b={1: 'x', (2, 3): None}, c=[dict(d=())])
    path = tmp_path / f'x.{suffix}'
    Config(dict(values)).dump(path)
    cfg = load_config(str(path))
    assert cfg.to_dict() == values
    assert Config.fromstring(cfg.dump(), f'.{suffix}').to_dict() == values
    if suffix == 'json':
        with pytest.raises(ConfigError, match='written as JSON: a is <built-in function'):
            Config(dict(a=len)).dump(path)


@pytest.mark.parametrize(
    'kind',
    [
        'os.system', 'builtins.eval', 'subprocess.run', 'mmengine.fileio.remove', 'mmcv.video.convert_video',
        'torch.hub.load', 'torch.load', 'antigravity', 'mmengine.registry.MODELS.build', 'addp_mm.errors.suggest',
        'evil_module', 'evil_module.Evil', 'nms; print()', '__import__("os").system("true")', 'RFSearchHook', '',
    ],
)  # fmt: skip
def test_types_that_are_not_registered_are_refused_and_not_imported(tmp_path, monkeypatch, kind):
    (tmp_path / 'evil_module.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\nclass Evil: pass')
    (tmp_path / 'evil_module').mkdir()
    (tmp_path / 'evil_module/registry.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    values = dict(GOOD, custom_hooks=[dict(type=kind, interval=1)])
    with pytest.raises(ConfigError, match=r'x\.json: custom_hooks\.0\.type=.*(not a registered|evaluates)'):
        load_config(written(tmp_path, values))
    assert not (tmp_path / 'ran').exists()
    assert not {'evil_module', 'antigravity'} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(custom_imports=dict(imports=['evil'])), "custom_imports: 'evil' is of another package"),
        (dict(custom_imports=dict(imports='os')), "custom_imports: 'os' is of another package"),
        (dict(default_scope='evil'), "default_scope='evil' is not one of"),
        (dict(model=dict(_scope_='evil')), "model._scope_='evil' is not one of"),
        (dict(optim_wrapper=dict(constructor='os.system')), "optim_wrapper.constructor='os.system'"),
        (dict(runner_type='os.system'), "runner_type='os.system'"),
        (dict(custom_hooks=[dict(type='EMAHook', ema_type='os.system')]), "custom_hooks.0.ema_type='os.system'"),
        (dict(a=dict(dtype='float32; x()')), 'a.dtype=.* is not a data type'),
        (dict(tokenizer=dict(trust_remote_code=True)), 'tokenizer.trust_remote_code'),
        ({"x': print(), 'y": 1}, 'is not a plain name'),
        (dict(_base_='base.py'), r'its base base\.py is not a file in JSON or YAML'),
        (dict(_base_='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'), 'is not a file in JSON or YAML'),
        (dict(_base_='x.json'), 'inherits from itself'),
        (dict(_base_='../in/../in/x.json'), 'inherits from itself'),
        (dict(a=dict(_tuple_=3)), '_tuple_ must hold a list'),
        ('[' * 200_000, 'nested too deeply'),
        ('[1]', 'holds a list, not a config'),
    ],
)
def test_other_ways_to_code_are_refused(tmp_path, change, words):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'base.py').write_text('raise SystemExit("it ran")')
    with pytest.raises(ConfigError, match=words):
        load_config(written(folder, change if isinstance(change, str) else dict(GOOD, **change)))


@pytest.mark.parametrize(
    'text, words',
    [
        ('a: !!python/object/apply:os.system [touch ran]', 'python/object/apply:os.system'),
        ('a: &a [*a]', 'aliases that contain themselves'),
        (
            'a: &a [1,1,1,1,1,1,1,1,1]\n'
            + ''.join(
                f'{name}: &{name} [{",".join(9 * [f"*{of}"])}]\n'
                for name, of in zip('bcdefghi', 'abcdefgh', strict=True)
            ),
            'more than 1000000 values',
        ),
    ],
)
def test_yaml_bombs_are_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path, text, 'x.yaml'))


def test_registered_types_of_the_packages_are_read(tmp_path):
    values = dict(
        GOOD, custom_imports=dict(imports=['addp_mm'], allow_failed_imports=False), default_scope='mmpretrain',
        a=dict(type='Mixup', alpha=0.8), b=dict(type='mmengine.hooks.IterTimerHook'), c=dict(type='nms'),
        d=dict(type='addp_mm.ADDPViT'), e=dict(type='torchvision/Resize'), f=dict(type='AdamW'),
        g=dict(type='mmengine.optim.AmpOptimWrapper', dtype='bfloat16'), _base_='base.yaml',
    )  # fmt: skip
    written(tmp_path, dict(lr=1, a=dict(alpha=1, beta=2)), 'base.yaml')
    cfg = load_config(written(tmp_path, values))
    assert cfg.lr == 1
    assert cfg.a == dict(type='Mixup', alpha=0.8, beta=2)
    # other templates are not filled in: they could send the environment away
    (tmp_path / 'below').mkdir()
    written(tmp_path / 'below', dict(a=dict(_tuple_=['{{ fileDirname }}/x.pth', 1])), 'base.json')
    cfg = load_config(written(tmp_path, dict(_base_='below/base.json', b='{{$HOME:}} {{fileDirname}}')))
    assert cfg.a == (f'{tmp_path}/below/x.pth', 1)
    assert cfg.b == '{{$HOME:}} ' + str(tmp_path)


def test_operators_by_their_paths_and_augmentations_are_read(tmp_path, monkeypatch):
    inner = [dict(type='OneOf', transforms=[dict(type='RandomBrightnessContrast')])]
    albu = dict(type='mmdet.Albu', transforms=inner, bbox_params=dict(type='BboxParams'))
    kinds = ('mmcv.ops.roi_align.RoIAlign', 'mmcv.ops.RoIAlign', 'mmcv.ops.nms.nms', 'mmcv.ops.nms', 'RoIAlign')
    good = dict(GOOD, pipeline=[albu], ops=[dict(type=kind) for kind in kinds])
    load_config(written(tmp_path, good))  # albumentations is not installed

    def of(name, module):
        return type(name, (), dict(__module__=module))

    albumentations = ModuleType('albumentations')
    names = ('OneOf', 'RandomBrightnessContrast', 'BboxParams')
    vars(albumentations).update({name: of(name, 'albumentations.core') for name in names}, Path=of('Path', 'pathlib'))
    albumentations.load = print
    monkeypatch.setitem(sys.modules, 'albumentations', albumentations)
    load_config(written(tmp_path, good))
    for kind in ('Path', 'load', 'os.system', 'ReLU'):
        inner[0]['transforms'][0]['type'] = kind
        with pytest.raises(ConfigError, match=r'pipeline\.0\.transforms\.0\.transforms\.0\.type=.* not a registered'):
            load_config(written(tmp_path, good))
    for node in (dict(type='mmcv.ops.os.RoIAlign'), dict(type='mmcv.ops.nms.os'), dict(type='Albu', a=inner[0])):
        with pytest.raises(ConfigError, match='not a registered class'):
            load_config(written(tmp_path, dict(GOOD, a=node)))


def test_registries_stay_limited_after_a_config_of_data(tmp_path):
    assert FUNCTIONS.get('os.path.join') is not None
    load_config(written(tmp_path, GOOD))
    for registry, name in ((FUNCTIONS, 'os.path.join'), (HOOKS, 'os.system'), (MODELS, 'torch.load')):
        assert registry.get(name) is None
    assert HOOKS.get('mmengine.hooks.IterTimerHook') is HOOKS.get('IterTimerHook')
    assert MODELS.get('torch.nn.Linear') is not None


def test_a_refused_config_does_not_limit_the_registries(tmp_path):
    for bad in (dict(type='os.system'), dict(type='IterTimerHook', trust_remote_code=True)):
        with pytest.raises(ConfigError):
            Config.fromstring(json.dumps(dict(GOOD, custom_hooks=[bad])), '.json')
        assert FUNCTIONS.get('os.path.join') is not None
    load_config(written(tmp_path, GOOD))
    with pytest.raises(ConfigError, match='not a registered class'):
        load_config(written(tmp_path, dict(GOOD, custom_hooks=[dict(type='os.system')])))
    assert FUNCTIONS.get('os.path.join') is None


def test_the_cause_is_named_if_a_later_config_names_a_type_by_its_path(tmp_path):
    words = 'is not registered.*; this process has read a config in JSON or YAML'
    with pytest.raises(ConfigError, match='mmengine::hook$'), name_sections():
        HOOKS.build(dict(type='my_pkg.Hook'))
    load_config(written(tmp_path, GOOD))
    with pytest.raises(ConfigError, match=words), name_sections():
        HOOKS.build(dict(type='my_pkg.Hook'))
    with pytest.raises(ConfigError, match=f'custom_hooks.0.type=.*{words}'):
        refuse_unknown_type('custom_hooks.0', 'my_pkg.Hook', ('HOOKS',), 'mmengine')
    with pytest.raises(ConfigError, match=r"type='Umbrella' is not registered in mmengine::hook$"), name_sections():
        HOOKS.build(dict(type='Umbrella'))


def test_text_of_a_config_is_read_as_data():
    cfg = Config(dict(a=(1, -2.5, None), b=dict(c=[dict(d='x')], e={1: True, 'f g': (2,)}), h=float('inf')))
    assert literal_config(cfg.pretty_text, 'text') == cfg.to_dict()
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    assert Config.fromstring('{"a": 1}', '.json').a == 1
    with pytest.raises(OSError, match='not in'):
        Config.fromstring('a = 1', '.txt')


@pytest.mark.parametrize(
    'text',
    [
        'import os', 'a = __import__("os").system("true")', 'a = [x for x in (1,)]', 'a = b', 'a = dict(**{})',
        'a = "x".upper()', 'print()', 'a: int = 1', 'a = b = 1', 'def f(): pass', 'a = f"{1}"', 'a.b = 1',
        'a = dict(1)', 'a = (', 'a = ' + '(' * 500, 'a = -"x"', 'a = open', 'a = eval("1")',
        'a={[1]:2}', 'a={[1]}', 'a=' + 1500 * '-' + '1',
    ],
)  # fmt: skip
def test_text_that_is_more_than_data_is_refused(text):
    with pytest.raises(ConfigError, match='the config in the checkpoint or text is (refused|not the text)'):
        Config.fromstring(text, '.py')
