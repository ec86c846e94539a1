# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whole runs of tools/pretrain_from_folder.py, whose commands are forks of one server."""

import hashlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_image_files import pack, write_images
from helpers.staged_commands import execution
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
_TINY = """
tokenizer.max_iters=6 tokenizer.batch_size=4 tokenizer.model.tokenizer.base_channels=32
tokenizer.model.tokenizer.codebook_size=32 tokenizer.model.tokenizer.num_res_blocks=1
predictor.max_iters=6 predictor.batch_size=4 predictor.model.predictor.embed_dims=16
predictor.model.predictor.num_layers=1 predictor.model.predictor.num_heads=2
predictor.model.predictor.decoder_embed_dims=16 predictor.model.predictor.decoder_num_layers=1
predictor.model.predictor.decoder_num_heads=2 addp.max_iters=6 addp.batch_size=4
addp.model.backbone.arch.embed_dims=16 addp.model.backbone.arch.num_layers=1 addp.model.backbone.arch.num_heads=2
addp.model.neck.num_layers=1 addp.model.neck.num_heads=2"""
TINY = _TINY.split()


def run(tmp_path, images, execute, *options, changes=()):
    import pretrain_from_folder

    work = tmp_path / 'work'
    pretrain_from_folder.main(
        [
            str(images),
            '--img-size',
            '32',
            '--size',
            'nano',
            '--work-dir',
            str(work),
            '--num-workers',
            '0',
            '--num-images',
            '2',
            '--views',
            '2',
            *options,
            '--cfg-options',
            *TINY,
            *changes,
        ],
        execute,
    )
    return work


def write_extractor(folder, channels):
    """A config that defines a tiny ViT as extractor, and its weights."""
    from addp_mm.registry import MODELS

    backbone = dict(
        type='addp_mm.ADDPViT',
        arch=dict(embed_dims=4, num_layers=1, num_heads=2),
        img_size=32,
        patch_size=16,
        in_channels=channels,
        out_type='avg_featmap',
    )
    torch.manual_seed(0)
    torch.save(MODELS.build(backbone).state_dict(), folder / 'vit.pth')
    backbone['init_cfg'] = dict(type='addp_mm.Pretrained', checkpoint=str(folder / 'vit.pth'))
    extractor = dict(
        type='addp_mm.BackboneFeatures', name='of-five', backbone=backbone, mean=[0.5] * channels, std=[0.5] * channels
    )
    (folder / 'extractor.py').write_text(f'extractor = {extractor!r}\n')
    return str(folder / 'extractor.py')


@pytest.mark.slow
def test_five_channels_end_to_end(tmp_path, run_tool, capsys):
    images = write_images(tmp_path / 'images', 5)
    work = run(tmp_path, images, execution(run_tool), '--fid-extractor', write_extractor(tmp_path, 5))
    measured = {
        key: value
        for stage in ('tokenizer', 'predictor')
        for key, value in json.loads((work / stage / 'metrics.json').read_text()).items()
    }
    assert measured.keys() == {
        'reconstruction/psnr',
        'reconstruction/ssim',
        'reconstruction/rfid[of-five]',
        'codebook/usage',
        'codebook/perplexity',
        *(f'predictor/{what}@{share}' for what in ('accuracy', 'cross_entropy') for share in ('0.50', '0.75', '0.95')),
    }
    assert measured['predictor/cross_entropy@0.50'] < 2 * np.log(32)
    assert measured['reconstruction/rfid[of-five]'] > 0
    weights = load_file(work / 'addp/weights.safetensors')
    assert weights['backbone.patch_embed.projection.weight'].shape[1] == 5
    assert 'patch_embed.projection.weight' in load_file(work / 'addp/backbone.safetensors')
    assert torch.equal(
        weights['tokenizer.codes.weight'], load_file(work / 'tokenizer/weights.safetensors')['codes.weight']
    )
    assert len(list((work / 'addp/samples/images').glob('*.png'))) == 2
    page = (work / 'report.html').read_text()
    assert '24 images with 5 channels, 6 of them held out' in page
    assert page.count('<img') >= 3
    assert 'rFID in features of of-five' in page
    assert 'accuracy, masked share 0.75' in page
    said = capsys.readouterr().out
    assert '24 images are few' in said
    assert 'all stages together take about' in said
    assert '$ python tools/train.py' in said

    # the same command again only writes the page; other options and an edited config are refused
    run(tmp_path, images, execution(run_tool), '--fid-extractor', write_extractor(tmp_path, 5))
    said = capsys.readouterr().out
    assert said.count('already done') == 3
    assert '$ python' not in said
    # Other metrics do not repeat a training.
    run(tmp_path, images, execution(run_tool))
    said = capsys.readouterr().out
    assert said.count('$ python') == 1
    assert 'tools/test.py' in said
    assert 'reconstruction/rfid[of-five]' not in json.loads((work / 'tokenizer/metrics.json').read_text())
    with pytest.raises(SystemExit, match=r'started with other options: own_data.max_iters 6 -> 7'):
        run(tmp_path, images, execution(run_tool), changes=['predictor.max_iters=7'])
    with (work / 'addp/config.py').open('a') as file:
        file.write('\n')
    with pytest.raises(SystemExit, match=r'was edited.*--addp-config.*--restart-from addp'):
        run(tmp_path, images, execution(run_tool))


def kill_child_when(path, server):
    """Kill the command of the tool server when a file exists."""

    def watch():
        until = time.monotonic() + 500
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.005)
        children = Path(f'/proc/{server.process.pid}/task/{server.process.pid}/children').read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.slow
def test_a_killed_predictor_continues_to_the_same_weights(tmp_path, run_tool, capsys):
    """This run uses shards, the other run uses files."""
    images, longer = pack(write_images(tmp_path / 'images', 1), tmp_path / 'shards'), ['predictor.max_iters=60']
    run_dir = tmp_path / 'work/predictor/run'

    def at_start(command):
        if 'train.py' in command[1] and 'predictor' in command[2]:
            # it exists when the first checkpoint is complete
            kill_child_when(run_dir / 'last_checkpoint', run_tool)

    with pytest.raises(SystemExit, match='(?s)ended with status -9.*continues at this command'):
        run(tmp_path, images, execution(run_tool, at_start), changes=longer)
    assert list(run_dir.glob('iter_*.pth'))
    assert not (tmp_path / 'work/predictor/weights.safetensors').exists()
    commands = []
    work = run(tmp_path, images, execution(run_tool, commands.append), changes=longer)
    trained = [command[2] for command in commands if 'train.py' in command[1]]
    assert [Path(config).parent.name for config in trained] == ['predictor', 'addp']
    resumed_at = re.findall(r'resumed epoch: \d+, iter: (\d+)', (work / 'predictor/train.log').read_text())
    assert resumed_at
    assert int(resumed_at[-1]) >= 8

    def digest():
        return hashlib.sha256(
            b''.join(
                value.numpy().tobytes()
                for _, value in sorted(load_file(work / 'predictor/weights.safetensors').items())
            )
        ).hexdigest()

    def only_the_predictor(command):
        if 'train.py' in command[1] and 'addp' in command[2]:
            raise KeyboardInterrupt

    resumed = digest()
    with pytest.raises(SystemExit, match='130'):
        run(tmp_path, images, execution(run_tool, only_the_predictor), '--restart-from', 'predictor', changes=longer)
    assert 'interrupted: the same command continues' in capsys.readouterr().err
    assert digest() == resumed
    assert not (work / 'addp/weights.safetensors').exists()
