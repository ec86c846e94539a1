# Copyright (c) addp_mm contributors. Apache-2.0.
"""The files of a wheel, and its use without the checkout."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from helpers.clean_environment import ROOT, make_environment

pytestmark = pytest.mark.slow
CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'


def files_below(root: Path, folder: str) -> set[str]:
    return {path.relative_to(root).as_posix() for path in (root / folder).rglob('*') if path.is_file()}


def test_a_wheel_holds_package_configs_tools_and_index_and_nothing_else(wheel, sources):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix('addp_mm/.mim/') for name in names if name.startswith('addp_mm/.mim/')}
    assert shipped == files_below(sources, 'configs') | files_below(sources, 'tools') | {'model-index.yml'}
    package = {name for name in names if '/.mim/' not in name and '.dist-info/' not in name}
    assert package == files_below(sources, 'addp_mm')


def test_inferencers_by_name_outside_of_the_checkout(installed):
    shutil.copy2(ROOT / 'tests/helpers/outside.py', installed.folder)
    installed.run('outside.py')
    results = json.loads((installed.folder / 'results.json').read_text())
    assert Path(results['package']).is_relative_to(installed.python.parents[1])
    assert not [path for path in results['sys.path'] if Path(path).is_relative_to(ROOT) and '.venv' not in path]
    assert results['classifier'] == pytest.approx(results['classifier by hand'], abs=1e-6)
    assert len(results['classifier']) == 10
    assert set(results['detector']) >= {'labels', 'scores', 'bboxes', 'masks'}
    assert results['detector classes'] == 10
    assert results['segmentor'] == [64, 64]
    assert results['segmentor labels'] <= 11
    assert results['inherited'] == 3


def test_a_config_inherits_before_anything_is_imported(installed):
    """mmdet's own tools/train.py reads a config like this, with mmengine only."""
    installed.folder.joinpath('mine.py').write_text(
        f"_base_ = __import__('addp_mm').config_path('{CLASSIFIER}')\nmodel = dict(head=dict(num_classes=3))\n"
    )
    words = installed.run(
        '-c',
        'from mmengine.config import Config; cfg = Config.fromfile("mine.py"); '
        'print(cfg.default_scope, cfg.model.backbone.type, cfg.model.head.num_classes)',
    )
    assert words.split() == ['mmpretrain', 'addp_mm.ADDPViT', '3']


def test_the_command_works_from_a_wheel(installed):
    assert 'usage: addp COMMAND' in installed.addp('--help')
    assert f'\n{CLASSIFIER} ' in installed.addp('list', 'nano')
    report = json.loads(installed.addp('doctor', '--json'))
    assert report['error'] == 0
    found = {finding['subject']: finding['text'] for finding in report['findings']}
    assert str(installed.python.parents[1]) in found['addp_mm']
    assert 'loss' in found['training on cpu']


def test_shipped_tools_run_from_a_wheel(installed):
    assert 'usage: ' in installed.run('-m', 'addp_mm', 'tools/train.py', '--help')
    installed.run(
        '-m',
        'addp_mm',
        'tools/dataset_converters/fashion_scenes.py',
        'data/fashion_scenes',
        '--train',
        '4',
        '--val',
        '2',
        '--objects-train',
        '20',
        '--objects-val',
        '10',
    )
    installed.addp(
        'train',
        CLASSIFIER,
        '--cfg-options',
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.batch_size=2',
    )
    assert list((installed.folder / 'work_dirs' / CLASSIFIER).glob('*/vis_data/scalars.json'))


def test_an_editable_install_reads_its_checkout(sources, tmp_path):
    environment = make_environment(tmp_path)
    environment.install('--editable', sources)
    assert not (sources / 'addp_mm' / '.mim').exists()
    path = environment.run('-c', f'import addp_mm; print(addp_mm.config_path("{CLASSIFIER}"))').strip()
    assert path == str(sources / f'configs/cls/{CLASSIFIER}.py')
