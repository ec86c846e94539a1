# Copyright (c) addp_mm contributors. Apache-2.0.
"""Wrong input is refused before training with an error that names it; existing files stay."""

import hashlib
import pickle
import shutil

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow


def refused(finished, *phrases):
    assert finished.status != 0, finished.output
    for phrase in phrases:
        assert phrase in finished.output
    assert 'Epoch(train)' not in finished.output
    assert 'error: ' in finished.output, finished.output
    assert 'Traceback' not in finished.output, finished.output


def digests(folder) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob('*.pth')}


@pytest.mark.parametrize(
    'option, phrases',
    [
        ('modle.backbone.patch_size=4', ["no 'modle'", 'did you mean model']),
        ('model.backbone.patch_sise=4', ['model.backbone.patch_sise', 'ADDPViT', 'did you mean patch_size']),
        ('model.backbone.umbrella=4', ['model.backbone.umbrella', 'ADDPViT', 'it takes', 'drop_path_rate']),
        ('model.hed.in_channels=4', ['model.hed', 'ImageClassifier', 'did you mean head']),
        ('train_dataloader.bacth_size=4', ['train_dataloader', "'bacth_size'", 'did you mean batch_size']),
        ('train_dataloader.shuffel=True', ['train_dataloader.shuffel', 'did you mean shuffle']),
        ('train_cfg.max_epoch=4', ['train_cfg', "'max_epoch'", 'did you mean max_epochs']),
        ('optim_wrapper.optimizer.weight_deacy=0.1', ['optim_wrapper.optimizer.weight_deacy', 'weight_decay']),
        ('default_hooks.checkpoint.intervall=2', ['default_hooks.checkpoint.intervall', 'did you mean interval']),
        ('train_dataloader.dataset.pipeline.0.umbrella=2', ['pipeline.0.umbrella', 'LoadImageFromFile', 'it takes']),
        ('val_evaluator.topK=1', ['val_evaluator.topK', 'did you mean topk']),
        ('train_pipeline.1.type=X', ['train_pipeline', 'Write train_dataloader.dataset.pipeline.1.type']),
        ('train_dataloader.dataset.pipeline.7.type=X', ['train_dataloader.dataset.pipeline', "'7'"]),
        ('nonsense', ['expected KEY=VALUE']),
    ],
)
def test_unknown_option(run_tool, workplace, option, phrases):
    refused(run_tool('train.py', 'tiny.py', '--work-dir', 'refused', '--cfg-options', option), *phrases)
    assert not (workplace / 'refused').exists()


@pytest.mark.parametrize(
    'right, wrong, phrases',
    [
        ('patch_size=8', 'patch_sise=8', ['config: model.backbone.patch_sise', 'did you mean patch_size']),
        ("type='Resize', scale=32", "type='Resize', scael=32", ['val_dataloader.dataset.pipeline.1.scael', 'scale']),
        ('weight_decay=0', 'weight_deacy=0', ['optim_wrapper.optimizer.weight_deacy', 'did you mean weight_decay']),
        ('max_epochs=2', 'max_epoch=2', ['config: train_cfg.max_epoch', 'did you mean max_epochs']),
    ],
)
def test_unknown_argument_in_a_config_file(run_tool, workplace, right, wrong, phrases):
    text = (workplace / 'tiny.py').read_text().replace('lr=1e-3', 'lr=1e-3, weight_decay=0')
    assert right in text
    (workplace / 'misspelt.py').write_text(text.replace(right, wrong))
    refused(run_tool('train.py', 'misspelt.py', '--work-dir', 'refused'), *phrases)
    assert not (workplace / 'refused').exists()


def test_wrong_config_path_names_near_files(run_tool):
    refused(run_tool('train.py', 'tinny.py'), 'tinny.py does not exist', 'did you mean tiny.py')


def test_wrong_checkpoint_path_names_near_files(run_tool, trained, workplace):
    missing = trained / 'epoch_3.pth'
    for arguments in (
        ['train.py', 'tiny.py', '--resume', missing],
        ['test.py', 'tiny.py', missing],
        ['train.py', 'tiny.py', '--cfg-options', f'load_from={missing}'],
    ):
        refused(run_tool(*arguments, '--work-dir', 'refused'), f'{missing} does not exist', 'epoch_2.pth')
    assert not (workplace / 'refused').exists()


@pytest.mark.parametrize(
    'options, phrases',
    [
        (['--out', 'data'], ['--out data is a folder']),
        (['--out', 'tiny.py/x.json'], ['--out tiny.py/x.json', 'tiny.py']),
        (['--out', '/proc/x.json'], ['--out /proc/x.json', 'no file can be written in /proc']),
        (['--show-dir', 'tiny.py'], ['--show-dir tiny.py', 'no file can be written']),
    ],
)
def test_a_test_checks_first_that_its_results_can_be_written(run_tool, trained, options, phrases):
    finished = run_tool('test.py', 'tiny.py', trained / 'epoch_2.pth', '--work-dir', 'unwritten', *options)
    refused(finished, *phrases)
    assert 'Epoch(test)' not in finished.output


def test_wrong_data_folder(run_tool, workplace):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'refused', '--cfg-options', 'train_dataloader.dataset.data_prefix=trian'
    )
    refused(finished, 'data/trian does not exist', 'data_prefix')
    assert not (workplace / 'refused').exists()


def test_auto_scale_lr_needs_a_base_batch_size(run_tool, workplace):
    text = (workplace / 'tiny.py').read_text().replace('auto_scale_lr = dict(base_batch_size=16)\n', '')
    (workplace / 'no_base.py').write_text(text)
    refused(run_tool('train.py', 'no_base.py', '--auto-scale-lr'), 'base_batch_size')


def test_missing_part_of_a_config(run_tool, workplace):
    text = (workplace / 'tiny.py').read_text().replace('train_dataloader = ', 'train_dataloder = ')
    (workplace / 'part_missing.py').write_text(text)
    refused(run_tool('train.py', 'part_missing.py'), "'train_dataloader' is missing", 'did you mean train_dataloder')


WIDER = ['model.backbone.arch.embed_dims=24', 'model.head.in_channels=24']


@pytest.mark.parametrize('tool', ['test', 'load_from', 'resume'])
def test_checkpoint_of_another_width(run_tool, trained, workplace, tool):
    before = digests(trained)
    checkpoint = trained / 'epoch_2.pth'
    if tool == 'test':
        finished = run_tool('test.py', 'tiny.py', checkpoint, '--work-dir', 'wider', '--cfg-options', *WIDER)
    elif tool == 'resume':
        finished = run_tool(
            'train.py', 'tiny.py', '--resume', checkpoint, '--work-dir', 'wider', '--cfg-options', *WIDER
        )
    else:
        finished = run_tool(
            'train.py', 'tiny.py', '--work-dir', 'wider', '--cfg-options', f'load_from={checkpoint}', *WIDER
        )
    refused(finished, 'backbone.cls_token is [1, 1, 16] in the checkpoint and [1, 1, 24] in the model')
    assert digests(trained) == before


def test_load_from_accepts_a_head_of_another_number_of_classes(run_tool, trained):
    finished = run_tool(
        'train.py',
        'tiny.py',
        '--work-dir',
        'classes',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'model.head.num_classes=3',
        f'load_from={trained / "epoch_2.pth"}',
    )
    assert finished.status == 0, finished.output
    assert 'not loaded, another number of classes: head.fc.weight, head.fc.bias' in finished.output


LARGER = """
_base_ = './tiny.py'
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]
model = dict(backbone=dict(img_size=64))
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


def test_load_from_accepts_a_vit_of_another_image_size(run_tool, trained, workplace):
    (workplace / 'larger.py').write_text(LARGER)
    finished = run_tool(
        'train.py',
        'larger.py',
        '--work-dir',
        'larger',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        f'load_from={trained / "epoch_2.pth"}',
    )
    assert finished.status == 0, finished.output
    assert 'not loaded' not in finished.output
    sizes = [
        torch.load(path, weights_only=False)['state_dict']['backbone.pos_embed'].shape[1]
        for path in (trained / 'epoch_2.pth', workplace / 'larger/epoch_1.pth')
    ]
    assert sizes == [17, 65]


def test_test_refuses_a_checkpoint_that_lacks_weights(run_tool, trained, workplace):
    weights = {key: torch.zeros(1) for key in ('nothing', 'here')}
    torch.save(weights, workplace / 'other.pth')
    finished = run_tool('test.py', 'tiny.py', 'other.pth', '--work-dir', 'lacking')
    refused(finished, 'other.pth lacks', 'backbone.cls_token')
    assert not (workplace / 'lacking/metrics.json').exists()


def test_load_from_refuses_a_checkpoint_without_a_single_key_of_the_model(run_tool, workplace):
    torch.save({'nothing': torch.zeros(1)}, workplace / 'nothing.pth')
    refused(
        run_tool('train.py', 'tiny.py', '--work-dir', 'lacking', '--cfg-options', 'load_from=nothing.pth'),
        'nothing.pth lacks',
    )


def test_resume_refuses_weights_alone(run_tool, trained, workplace):
    state = {'state_dict': {'backbone.cls_token': torch.zeros(1, 1, 16)}}
    torch.save(state, workplace / 'weights_alone.pth')
    refused(
        run_tool('train.py', 'tiny.py', '--resume', 'weights_alone.pth', '--work-dir', 'alone'),
        'weights only',
        'load_from',
    )


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


REASONS = dict(truncated='is truncated', text='is a web page, not a checkpoint', code='is refused')


@pytest.mark.parametrize('damage', REASONS)
@pytest.mark.parametrize('how', ['test', 'load_from', 'resume'])
def test_damaged_checkpoint(run_tool, trained, workplace, damage, how):
    name = f'{damage}_{how}.pth'
    file, mark = workplace / name, workplace / f'ran_{how}'
    if damage == 'truncated':
        content = (trained / 'epoch_2.pth').read_bytes()
        file.write_bytes(content[: len(content) // 2])
    elif damage == 'text':
        file.write_text('<html>Not found</html>')
    else:
        torch.save({'state_dict': {'weight': torch.zeros(1)}, 'extra': Payload(mark)}, file, pickle_protocol=2)
        assert pickle.PROTO in file.read_bytes()
    arguments = dict(
        test=['test.py', 'tiny.py', file],
        resume=['train.py', 'tiny.py', '--resume', file],
        load_from=['train.py', 'tiny.py', '--cfg-options', f'load_from={file}'],
    )[how]
    refused(run_tool(*arguments, '--work-dir', 'damaged'), f'{name} {REASONS[damage]}')
    assert not mark.exists()


def test_failing_start_keeps_earlier_checkpoints(run_tool, trained, workplace):
    folder = workplace / 'kept'
    shutil.copytree(trained, folder)
    content = (folder / 'epoch_2.pth').read_bytes()
    for path in folder.glob('epoch_*.pth'):
        path.write_bytes(content[:1000])
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    before = digests(folder)
    refused(run_tool('train.py', 'tiny.py', '--work-dir', folder, '--resume'), 'epoch_2.pth')
    refused(run_tool('train.py', 'tiny.py', '--work-dir', folder, '--cfg-options', 'model.backbone.patch_sise=4'))
    assert digests(folder) == before


def test_image_size_that_is_not_a_multiple_of_the_patch(run_tool, workplace):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'odd', '--cfg-options', 'val_dataloader.dataset.pipeline.1.scale=36'
    )
    refused(finished, 'validation would fail', '36', 'patch')
    assert not list((workplace / 'odd').glob('*.pth'))


def test_training_images_that_are_not_a_multiple_of_the_patch(run_tool, workplace):
    shutil.copytree(workplace / 'data/train', workplace / 'data/odd')
    for path in (workplace / 'data/odd').rglob('*.png'):
        Image.open(path).resize((30, 30)).save(path)
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'odd_train', '--cfg-options', 'train_dataloader.dataset.data_prefix=odd'
    )
    refused(finished, 'training would fail on', 'data/odd/', 'image of 30 x 30', 'patch')


def test_an_option_that_the_model_refuses(run_tool):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'by_the_model', '--cfg-options', 'model.backbone.img_size=60'
    )
    refused(finished, 'img_size 60 x 60', 'multiples of patch_size 8')


def test_forgotten_launcher(run_tool, workplace):
    finished = run_tool('train.py', 'tiny.py', '--work-dir', 'forgotten', WORLD_SIZE='2', RANK='0')
    refused(finished, '--launcher pytorch')
    assert not (workplace / 'forgotten').exists()
