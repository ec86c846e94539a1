# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp check`` on small data: its numbers, its page, and faults that it must list."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.balanced_html import unbalanced
from helpers.html_page import ParsedPage
from helpers.run_tools import Finished
from PIL import Image

from addp_mm.datasets.tokens.token_store import TokenWriter

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTOR = CONFIGS / 'det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
SEGMENTOR = CONFIGS / 'seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py'
PRETRAINING = CONFIGS / 'pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'


def fresh_process(cwd, *arguments):
    """Run the tool where no package has been imported before."""
    command = [sys.executable, str(CONFIGS.parent / 'tools/check.py'), *map(str, arguments)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    return Finished(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def check(run_tool, tmp_path):
    """Run the tool on a config; returns its status, report.json and the page."""

    def run(config, *options):
        out, base = tmp_path / 'out', Path(config).read_text()
        arguments = [config, '--out', out, *options]
        own = f'{os.sep}seg{os.sep}' in base
        finished = fresh_process(tmp_path, *arguments) if own else run_tool('check.py', *arguments)
        assert 'Traceback' not in finished.output, finished.output
        return finished, json.loads((out / 'report.json').read_text()), (out / 'report.html').read_text()

    return run


def on(base, root, tmp_path, text=''):
    """A config on the data in ``root``, with more settings."""
    settings = f'dataset=dict(data_root={str(root)!r}), batch_size=2, num_workers=0, persistent_workers=False'
    loaders = [f'{loader}_dataloader = dict({settings})' for loader in ('train', 'val', 'test')]
    evaluators = (
        [
            f'{split}_evaluator = dict(ann_file={str(root / "annotations/instances_val.json")!r})'
            for split in ('val', 'test')
        ]
        if base == DETECTOR
        else []
    )
    path = tmp_path / 'config.py'
    path.write_text('\n'.join([f'_base_ = {str(base)!r}', *loaders, *evaluators, text]))
    return path


def data_of(report, split):
    (found,) = [one for one in report['data'] if one['split'] == split]
    return found


def test_a_detector(check, small_scenes, tmp_path):
    finished, report, html = check(on(DETECTOR, small_scenes, tmp_path), '--num-images', 2)
    assert finished.status == 0, finished.output
    assert report['checks']
    assert not any(report['checks'].values())
    assert set(report['checks']) >= {'arguments of the config', 'data', 'model', 'first batches'}
    train = data_of(report, 'train')
    content = json.loads((small_scenes / 'annotations/instances_train.json').read_text())
    counts = Counter(one['category_id'] for one in content['annotations'])
    ids = {one['name']: one['id'] for one in content['categories']}
    assert train['images'] == 4
    assert train['by_class'] == [counts[ids[name]] for name in train['classes']]
    assert train['sizes']['common'] == [[64, 64, 4]]
    assert data_of(report, 'val and test')['boxes']['objects'] == len(
        json.loads((small_scenes / 'annotations/instances_val.json').read_text())['annotations']
    )
    page = ParsedPage(html)
    assert (unbalanced(html), page.external()) == ([], [])
    alts = [image['alt'] for image in page.attributes('img')]
    assert alts[0] == 'objects by class'
    assert sum(alt.startswith('histogram') for alt in alts) == 3
    assert sum(alt.startswith('annotated image') for alt in alts) == 4
    assert 'addp check' in page.text
    assert f'All {len(report["checks"])} checks passed' in page.text
    # neither logs nor a work dir
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'out']


def test_a_segmentor(check, small_scenes, tmp_path):
    finished, report, html = check(on(SEGMENTOR, small_scenes, tmp_path), '--num-images', 1, '--num-workers', 3)
    assert finished.status == 0, finished.output
    for split, folder in (('train', 'train'), ('val and test', 'val')):
        maps = [np.asarray(Image.open(path)) for path in sorted((small_scenes / 'labels' / folder).glob('*.png'))]
        found = data_of(report, split)
        assert found['by_class'] == [sum(int((one == label + 1).sum()) for one in maps) for label in range(11)]
        assert found['labels']['pixels'] == sum(one.size for one in maps)
        assert found['labels']['unusual'] == {}
    absent = [n for n, count in zip(found['classes'], found['by_class'], strict=True) if not count]
    assert any('val and test: ' in text and absent[0] in text for text in report['warnings'])
    page = ParsedPage(html)
    assert (unbalanced(html), page.external()) == ([], [])
    assert 'background' in page.text


def test_a_classifier_and_images_in_both_splits(check, workplace, tmp_path):
    shutil.copytree(workplace / 'data', tmp_path / 'data')
    for name in ('dark', 'light'):
        shutil.copy(tmp_path / f'data/train/{name}/3.png', tmp_path / f'data/val/{name}/copy.png')
    shutil.copy(tmp_path / 'data/train/dark/1.png', tmp_path / 'data/train/dark/again.png')
    (tmp_path / 'config.py').write_text((workplace / 'tiny.py').read_text().replace(str(workplace), str(tmp_path)))
    finished, report, html = check(tmp_path / 'config.py')
    assert finished.status == 0, finished.output
    assert data_of(report, 'train')['by_class'] == [9, 8]
    assert data_of(report, 'val and test')['by_class'] == [5, 5]
    assert report['duplicates']['between'] == {'val and test in train': 2}
    assert report['duplicates']['within'] == {'train': 1, 'val and test': 0}
    assert 'warning: 2 image files of val and test are also in train' in finished.output
    assert 'copy.png' in ParsedPage(html).text


@pytest.mark.parametrize('kind', ['files', 'shards', 'database'])
def test_a_pretraining_on_own_images(check, small_scenes, tmp_path, kind):
    files = sorted((small_scenes / 'scenes/train').glob('*.png'))
    if kind == 'files':
        source = dict(type='addp_mm.ImageFiles', root=str(small_scenes / 'scenes/train'))
    elif kind == 'shards':
        with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
            for path in [*files, files[0]]:
                archive.add(path, f'x{len(archive.getmembers())}.png')
        source = dict(type='addp_mm.WebDatasetImages', shards=str(tmp_path / 'a.tar'))
    else:
        lmdb = pytest.importorskip('lmdb', reason='comes with addp_mm[data]')
        with lmdb.open(str(tmp_path / 'lmdb'), map_size=2**24) as database, database.begin(write=True) as transaction:
            for path in [*files, files[0]]:
                transaction.put(
                    f'{len(path.name)}{path.stem}{transaction.stat()["entries"]}'.encode(), path.read_bytes()
                )
        source = dict(type='addp_mm.LMDBImages', path=str(tmp_path / 'lmdb'))
    pipeline = [dict(type='addp_mm.LoadImage'), dict(type='PackInputs')]
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(PRETRAINING)!r}\n'
        f'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, '
        f'dataset=dict(_delete_=True, pipeline={pipeline}, **{source}))\n'
    )
    finished, report, html = check(tmp_path / 'config.py', *([] if kind == 'files' else ['--no-model']))
    assert finished.status == 0, finished.output
    repeated = kind != 'files'
    train = data_of(report, 'train')
    assert (train['images'], train['sizes']['common']) == (4 + repeated, [[64, 64, 4 + repeated]])
    assert report['duplicates']['within'] == {'train': int(repeated)}
    assert (
        sum(image['alt'].startswith('annotated image') for image in ParsedPage(html).attributes('img')) == 4 + repeated
    )
    assert not list(tmp_path.rglob('*.index'))


def test_stored_tokens(check, tmp_path):
    settings = dict(
        tokenizer=dict(fingerprint='a', codebook_size=64),
        images=dict(count=5, fingerprint='b'),
        views=dict(count=2, augmentation='flip', image_size=64),
        shard=dict(index=0, of=1),
        notes={},
    )
    writer = TokenWriter(tmp_path / 'ids', settings, (5, 2, 4), 'uint16')
    writer.write((np.arange(40) % 10).reshape(5, 2, 4).astype(np.uint16), {3: ('3.png', 'cut off')})
    writer.save()
    base = CONFIGS / 'pretrain/token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
    root = str(tmp_path / 'ids')
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(base)!r}\ntrain_dataloader = dict(dataset=dict(data_root={root!r}, tokenizer=None))\n'
    )
    finished, report, _ = check(tmp_path / 'config.py', '--split', 'train', '--no-model')
    assert finished.status == 0, finished.output
    assert data_of(report, 'train')['notes'] == []
    tokens = data_of(report, 'train')['tokens']
    assert (tokens['images'], tokens['broken'], tokens['views'], tokens['tokens']) == (4, 1, 2, 4)
    assert (tokens['codes'], tokens['used']) == (10, 10)
    assert tokens['perplexity'] == pytest.approx(10)
    assert 'warning: train: 1 images could not be read' in finished.output


def test_data_that_only_their_dataset_checks(check, tmp_path):
    source = dict(type='addp_mm.ImageFiles', root=str(tmp_path / 'missing'), pipeline=[])
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(PRETRAINING)!r}\ntrain_dataloader = dict(dataset=dict(_delete_=True, **{source}))\n'
    )
    finished, report, _ = check(tmp_path / 'config.py', '--no-model')
    assert finished.status == 1
    assert 'missing does not exist' in report['checks']['reading train'][0]


def tiny_with(workplace, tmp_path, text):
    (tmp_path / 'config.py').write_text((workplace / 'tiny.py').read_text() + text)
    return tmp_path / 'config.py'


def test_all_faults_of_a_config_are_listed(check, workplace, tmp_path):
    text = """
train_dataloader['dataset']['data_prefix'] = 'trian'
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], data_prefix='vall'))
optim_wrapper['optimizer']['weight_deacy'] = 0.1
default_hooks['checkpoint'] = dict(intervall=5)
train_cfg['max_epochs'] = 0
load_from = 'absent.pth'
"""
    finished, report, html = check(tiny_with(workplace, tmp_path, text))
    assert finished.status == 1
    failed = {name: messages for name, messages in report['checks'].items() if messages}
    # the optimizer refuses the misspelt argument, too
    wrong = {'arguments of the config', 'numbers of the config', 'optimizer settings', 'checkpoints', 'data'}
    assert set(failed) == wrong
    assert len(failed['arguments of the config']) == 2
    assert len(failed['data']) == 2
    for phrase in ('weight_deacy', 'intervall', 'data/trian', 'data/vall', 'max_epochs', 'absent.pth'):
        assert any(phrase in message for messages in failed.values() for message in messages)
        assert phrase in ParsedPage(html).text
        assert phrase in finished.output
    assert f'5 of {len(report["checks"])} checks failed' in finished.output
    assert data_of(report, 'train')['notes']
    assert data_of(report, 'train')['images'] is None
    assert data_of(report, 'val')['by_class'] == [4, 4]
    assert unbalanced(html) == []


def test_faults_that_only_the_first_batches_show(check, workplace, tmp_path):
    text = """
val_pipeline[1]['scale'] = 36
default_hooks['checkpoint'] = dict(interval=1, save_best='acuracy/top1')
"""
    finished, report, _ = check(tiny_with(workplace, tmp_path, text))
    assert finished.status == 1
    found = report['checks']['first batches']
    assert len(found) == 2
    assert "save_best='acuracy/top1'" in found[0]
    assert 'validation would fail' in found[1]


def test_an_optimizer_that_cannot_be_built(check, workplace, tmp_path):
    text = "\noptim_wrapper['paramwise_cfg'] = dict(custom_keys=[1])\n"
    finished, report, _ = check(tiny_with(workplace, tmp_path, text))
    assert finished.status == 1
    (message,) = report['checks']['optimizer']
    assert message.startswith('config: optim_wrapper cannot be built: ')
    assert report['checks']['loops'] == []


def test_a_model_that_cannot_be_built_and_data_that_can_be_counted(check, workplace, tmp_path):
    text = "\nmodel['head']['num_classes'] = -2\n"
    finished, report, _ = check(tiny_with(workplace, tmp_path, text))
    assert finished.status == 1
    assert 'the model or a hook cannot be built' in report['checks']['model'][0]
    assert data_of(report, 'train')['by_class'] == [8, 8]


def test_a_pretraining_whose_frozen_component_gets_no_weights(check, small_scenes, tmp_path):
    source = dict(type='addp_mm.ImageFiles', root=str(small_scenes / 'scenes/train'))
    pipeline = [dict(type='addp_mm.LoadImage'), dict(type='PackInputs')]
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(PRETRAINING)!r}\n'
        f'train_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, pipeline={pipeline}, **{source}))\n'
        'model = dict(tokenizer=dict(init_cfg=None))\n'
    )
    finished, report, _ = check(tmp_path / 'config.py')
    assert finished.status == 1
    (message,) = report['checks']['initial weights']
    assert 'no weights were loaded into the frozen tokenizer' in message
    assert report['checks']['first batches'] == []
    # weights that would be downloaded count as loaded
    path = tmp_path / 'config.py'
    far = dict(type='addp_mm.Pretrained', checkpoint='https://example.org/tokenizer.pth')
    path.write_text(path.read_text().replace('init_cfg=None', f'init_cfg={far}'))
    finished, report, _ = check(path)
    assert finished.status == 0, finished.output
    assert 'https://example.org/tokenizer.pth' in report['warnings'][0]


def test_a_checkpoint_of_another_width(check, workplace, tmp_path):
    torch.save({'state_dict': {'backbone.cls_token': torch.zeros(1, 1, 24)}}, tmp_path / 'other.pth')
    text = f'\nload_from = {str(tmp_path / "other.pth")!r}\n'
    finished, report, _ = check(tiny_with(workplace, tmp_path, text))
    assert 'backbone.cls_token is [1, 1, 24] in the checkpoint' in report['checks']['load_from'][0]


@pytest.mark.parametrize(
    'arguments, phrases',
    [
        (['tinny.py'], ['tinny.py does not exist', 'did you mean tiny.py']),
        (['tiny.py', '--cfg-options', 'modle.x=1'], ['did you mean model']),
        (['tiny.py', '--out', 'tiny.py'], ['--out tiny.py']),
        (
            ['tiny.py', '--cfg-options', 'test_dataloader=None', '--split', 'test'],
            ['the config has no test_dataloader'],
        ),
        (['tiny.py', '--num-images', '-1'], ['at least 0']),
    ],
)
def test_wrong_arguments_are_refused(run_tool, arguments, phrases):
    finished = run_tool('check.py', *arguments)
    assert finished.status != 0
    assert 'Traceback' not in finished.output
    assert 'error: ' in finished.output
    for phrase in phrases:
        assert phrase in finished.output


def test_nothing_is_written_without_out(run_tool, workplace):
    run_tool('check.py', '--help')  # creates the server's log
    before = sorted(workplace.rglob('*'))
    finished = run_tool('check.py', 'tiny.py')
    assert finished.status == 0, finished.output
    assert 'images' in finished.output
    assert sorted(workplace.rglob('*')) == before
