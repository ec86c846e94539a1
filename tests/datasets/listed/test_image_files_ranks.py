# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two ranks: one lists the images, both share the list and the count of broken ones."""

import json
import multiprocessing
import os

import pytest
import torch
from mmengine import dist
from PIL import Image

from addp_mm.datasets import DatasetError, ImageFiles, ResumableInfiniteSampler
from addp_mm.datasets.listed import broken_images, image_files


def run(rank, folder):
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank))
    torch.distributed.init_process_group('gloo', f'file://{folder}/meeting', rank=rank, world_size=2)
    scans = []
    find = image_files.find_images
    image_files.find_images = lambda root, *others: scans.append(root) or find(root, *others)
    broken_images.BROKEN_ALLOWANCE = 3
    found = {}
    try:
        ImageFiles(folder / 'empty', index_file=folder / 'empty.index', extensions=['.none'])
    except DatasetError as error:
        found['empty'] = str(error)
    pipeline = [dict(type='addp_mm.LoadImage')]
    data = ImageFiles(folder / 'images', pipeline, index_file=folder / 'list', max_broken_share=0.0)
    found.update(length=len(data), scans=len(scans), sampled=[next(iter(ResumableInfiniteSampler(data, seed=1)))])
    # each rank reads two broken images, one of which is the same
    for turn in range(2):
        dist.barrier()
        if rank == turn:
            for index in ((0, 2), (2, 4))[rank]:
                data[index]
    dist.barrier()
    found['broken'] = sorted(map(os.path.basename, data.broken.read()))
    dist.barrier()
    try:
        # the fourth, which only rank 1 reads
        found['stopped'] = '' if rank == 0 else str(data[6])
    except DatasetError as error:
        found['stopped'] = str(error)
    dist.barrier()
    (folder / f'found_{rank}.json').write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    (folder / 'images').mkdir()
    (folder / 'empty').mkdir()
    for index in range(40):
        Image.new('L', (4, 3), index).save(folder / f'images/{index:02d}.png')
    for index in (0, 2, 4, 6):
        (folder / f'images/{index:02d}.png').write_bytes(b'no image')
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=run, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [json.loads((folder / f'found_{rank}.json').read_text()) for rank in range(2)]


def test_one_rank_lists_for_all(found):
    assert [item['length'] for item in found] == [40, 40]
    # of the two datasets
    assert [item['scans'] for item in found] == [2, 0]
    assert 'has no images' in found[0]['empty']
    assert found[0]['empty'] == found[1]['empty']
    assert found[0]['sampled'] != found[1]['sampled']


def test_broken_images_of_all_ranks_count_together(found):
    assert found[0]['broken'] == found[1]['broken'] == ['00.png', '02.png', '04.png']
    assert found[0]['stopped'] == ''
    assert '4 images are broken, 3 are allowed' in found[1]['stopped']
