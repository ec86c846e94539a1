# Copyright (c) addp_mm contributors. Apache-2.0.
"""Ids for a kept list of images of which some no longer exist."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from addp_mm.datasets import ImageFiles
from addp_mm.datasets.tokens.token_store import read_about
from addp_mm.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/tokenize_images.py'
TOKENIZER = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=32,
    channel_mults=(1,),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=64,
    embed_dims=4,
    normalize_codes=True,
)


@pytest.fixture
def arguments(tmp_path):
    """Arguments for 14 listed images of which 11, one more than allowed, no longer exist."""
    (tmp_path / 'images').mkdir()
    for index in range(14):
        Image.new('RGB', (16, 16), (index, 0, 0)).save(tmp_path / f'images/{index:02d}.png')
    data = dict(type='addp_mm.ImageFiles', root=str(tmp_path / 'images'), index_file=str(tmp_path / 'list'))
    ImageFiles(data['root'], index_file=data['index_file'])
    for index in range(11):
        (tmp_path / f'images/{index:02d}.png').unlink()
    (tmp_path / 'images.py').write_text(f'train_dataloader = dict(dataset=dict(**{data!r}, changed="keep"))\n')
    torch.manual_seed(0)
    save_file(MODELS.build(dict(TOKENIZER)).state_dict(), tmp_path / 'vq.safetensors')
    (tmp_path / 'vq.json').write_text(json.dumps(dict(tokenizer=TOKENIZER)))
    return [str(tmp_path / name) for name in ('vq.safetensors', 'images.py', 'ids')] + [
        '--img-size',
        '16',
        '--views',
        '1',
        '--augment',
        'none',
        '--batch-size',
        '4',
        '--num-workers',
        '0',
        '--max-broken-share',
        '0',
    ]


def test_missing_images_are_recorded_and_not_counted_as_broken(arguments, tmp_path):
    spec = importlib.util.spec_from_file_location('tokenize_images', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / 'images/12.png').write_bytes(b'no image')
    tool.main(arguments)
    assert np.load(tmp_path / 'ids/ids.npy').shape == (14, 1, 16)
    recorded = read_about(tmp_path / 'ids')['broken']
    assert [image['index'] for image in recorded] == [*range(11), 12]
    assert all(image['reason'] == 'it no longer exists' for image in recorded[:-1])
    assert 'cannot be read as an image' in recorded[-1]['reason']
