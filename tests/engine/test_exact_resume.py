# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each stage of pre-training, killed and resumed, ends with the weights of an uninterrupted run."""

import json

import numpy as np
import pytest
import torch
from helpers.interrupted import STATUS, assert_equal_trainings, choose, in_a_fork, run_train
from helpers.tiny_addp import MODEL, SPACE, build_model
from helpers.tiny_vqgan import DISCRIMINATOR, OPTIM_WRAPPER, TOKENIZER
from PIL import Image

from addp_mm.datasets.tokens.token_store import TokenWriter

pytestmark = pytest.mark.slow
PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=[0] * 3, std=[255] * 3, to_rgb=True)
LOADED = dict(type='addp_mm.Pretrained', strict=True)
COMMON = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['addp_mm', 'helpers.kill_at'])
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
                     logger=dict(type='LoggerHook', interval=1),
                     random_state=dict(type='addp_mm.RandomStateHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""
IMAGES = """
train_dataloader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, collate_fn=dict(type='default_collate'),
    sampler=dict(type='addp_mm.ResumableInfiniteSampler'),
    dataset=dict(type='addp_mm.ImageFiles', root={root!r}, pipeline=[
        dict(type='addp_mm.LoadImage'), dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.2, 1.0)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
"""
IDS = """
train_dataloader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, collate_fn=dict(type='default_collate'),
    sampler=dict(type='addp_mm.ResumableInfiniteSampler'),
    dataset=dict(type='addp_mm.TokenIds', data_root={root!r}))
"""


def tokenizer_config(folder):
    model = dict(
        type='addp_mm.VQGANPretrain',
        tokenizer=TOKENIZER,
        discriminator=DISCRIMINATOR,
        lecam_weight=0.1,
        schedule=dict(start=2, ramp=4),
        restart_interval=2,  # restarts at 2, 4 and 6: on both sides of the checkpoint
        restart_until=20,
        data_preprocessor=PREPROCESSOR,
    )
    hooks = [
        "dict(type='addp_mm.CodeRestartHook')",
        "dict(type='EMAHook', momentum=0.1)",
        # before the checkpoint, so that it has the mean of this iteration
        "dict(type='addp_mm.AdversarialStartHook', priority='LOW', window=3, watch=4, max_drop=0.01)",
    ]
    return model, OPTIM_WRAPPER, hooks, IMAGES.format(root=str(folder / 'images'))


def predictor_config(folder):
    # its dropout draws from the global generator
    predictor = dict(MODEL['predictor'], drop_rate=0.1)
    model = dict(type='addp_mm.PredictorPretrain', tokenizer=None, predictor=predictor, drop_ratio=0.5)
    return model, ADAMW, [], IDS.format(root=str(folder / 'ids'))


def addp_config(folder):
    components = {
        name: dict(MODEL[name], init_cfg=dict(LOADED, checkpoint=str(folder / f'{name}.pth')))
        for name in ('tokenizer', 'predictor')
    }
    model = dict(MODEL, **components)
    model['neck'] = dict(MODEL['neck'], drop_rate=0.1)
    hooks = ["dict(type='addp_mm.GenerativePretrainHook', preview_interval=3, preview_images=1)"]
    return model, ADAMW, hooks, IMAGES.format(root=str(folder / 'images'))


ADAMW = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=3.0))
STAGES = dict(tokenizer=tokenizer_config, predictor=predictor_config, addp=addp_config)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Images, one of them broken; stored ids of three views; weights of tokenizer and predictor."""
    folder, rng = tmp_path_factory.mktemp('resume'), np.random.default_rng(0)
    (folder / 'images').mkdir()
    for index in range(22):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(folder / f'images/{index:02d}.png')
    (folder / 'images/07.png').write_bytes(b'no image')
    settings = dict(tokenizer={}, images={}, views={}, shard=dict(index=0, of=1))
    writer = TokenWriter(folder / 'ids', settings, (22, 3, 16), 'uint16')
    writer.write(rng.integers(0, SPACE['codebook_size'], (22, 3, 16)), {})
    writer.save()
    model = build_model()
    torch.save(model.tokenizer.state_dict(), folder / 'tokenizer.pth')
    torch.save(model.predictor.state_dict(), folder / 'predictor.pth')
    return folder


def train(prepared, stage, name, *options, kill_at=None, seed=5):
    """Run tools/train.py in a process; return its exit status and output."""
    model, wrapper, hooks, data = STAGES[stage](prepared)
    hooks = ["dict(type='RecordBatches')", *hooks]
    if kill_at is not None:
        hooks.append(repr(dict(type='KillAt', **kill_at)))
    config, log = prepared / f'{stage}_{name}.py', prepared / f'{stage}_{name}.log'
    config.write_text(
        f'{COMMON}{data}model = {model!r}\noptim_wrapper = {wrapper!r}\n'
        f'custom_hooks = [{", ".join(hooks)}]\nrandomness = dict(seed={seed})\n'
    )
    return in_a_fork(log, run_train, config, '--work-dir', prepared / stage / name.split('_')[0], *options)


def trained_on(folder):
    return [tuple(map(int, line.split())) for line in (folder / 'batches.txt').read_text().splitlines()]


@pytest.mark.parametrize('stage, workers', [('tokenizer', 1), ('predictor', 2), ('addp', 0)])
def test_a_stopped_training_equals_an_uninterrupted_one(prepared, stage, workers):
    kill_at = choose(stage, 8)
    iteration, expected = kill_at['iteration'], STATUS[kill_at['signal']]
    status, output = train(prepared, stage, 'whole')
    assert status == 0, output
    status, output = train(prepared, stage, 'parts_killed', kill_at=kill_at)
    assert status == expected, output
    assert 'Traceback' not in output
    # the number of processes that load the images must not change the result
    options = [
        '--resume',
        '--cfg-options',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
    ]
    status, output = train(prepared, stage, 'parts_resumed', *options)
    assert status == 0, output
    assert_equal_trainings(prepared / stage / 'whole', prepared / stage / 'parts', 'iter_8.pth')
    # after kill -9 there is one checkpoint before the last, of four iterations
    start = iteration + 1 if expected > 0 else 0 if iteration < 4 else 4
    batches = trained_on(prepared / stage / 'parts')
    assert [number for number, _ in batches] == [*range(iteration + 1), *range(start, 8)]
    assert batches[:start] + batches[iteration + 1 :] == trained_on(prepared / stage / 'whole')
    assert len({value for _, value in trained_on(prepared / stage / 'whole')}) == 8


def test_broken_images_of_a_training_are_listed_in_its_work_dir(prepared):
    folder = prepared / 'tokenizer/whole'
    if not folder.is_dir():
        assert train(prepared, 'tokenizer', 'whole')[0] == 0
    (path,) = folder.glob('broken_images_images_*.txt')
    assert '07.png' in path.read_text()
    assert len(list(folder.glob('images_images_*.index'))) == 1


def test_the_seed_of_the_command_line_changes_masks_and_order(prepared):
    starts = []
    for seed in (5, 6):
        status, output = train(
            prepared, 'addp', f'seed{seed}', '--seed', seed, '--cfg-options', 'train_cfg.max_iters=1', seed=None
        )
        assert status == 0, output
        (scalars,) = (prepared / 'addp' / f'seed{seed}').rglob('vis_data/scalars.json')
        ratio = json.loads(scalars.read_text().splitlines()[0])['mask_ratio']
        starts.append((ratio, trained_on(prepared / 'addp' / f'seed{seed}')))
    (first_ratio, first_batches), (second_ratio, second_batches) = starts
    assert first_ratio != second_ratio
    assert first_batches != second_batches
