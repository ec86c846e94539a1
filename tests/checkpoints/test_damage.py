# Copyright (c) addp_mm contributors. Apache-2.0.
import errno
import io
import os
import random

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from addp_mm.checkpoints.archive import check_archive
from addp_mm.checkpoints.atomic_write import write_safetensors
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import damage, load_checkpoint_file, safe_load

CONTENT = dict(state_dict={'a.weight': torch.arange(60.0), 'b': torch.tensor(3)}, meta=dict(iter=4, cfg='text'))


def same(value):
    return (
        torch.equal(value['state_dict']['a.weight'], CONTENT['state_dict']['a.weight'])
        and value['state_dict']['b'] == 3
        and ('iter' not in value['meta'] or value['meta'] == CONTENT['meta'])
    )


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def harmless_flips(path, positions, choose):
    """Flip one bit at each position: the number of files that are read, all of them rightly."""
    content, read = path.read_bytes(), 0
    for position in positions:
        path.write_bytes(flipped(content, position, choose.randrange(8)))
        try:
            assert same(load_checkpoint_file(path)), position
            read += 1
        except CheckpointError:
            continue
    path.write_bytes(content)
    return read


def test_every_flipped_bit_is_refused_or_harmless(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path)
    size, choose = path.stat().st_size, random.Random(0)
    read = harmless_flips(path, range(0, size, 3), choose)
    assert 0 < read < size / 6  # padding between the records, dates and versions in their headers


@pytest.mark.parametrize('load', [load_checkpoint_file, safe_load, CheckpointLoader.load_checkpoint])
def test_the_damaged_record_is_named(tmp_path, load):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path)
    content = path.read_bytes()
    position = content.index(torch.tensor([7.0, 8.0]).numpy().tobytes())
    path.write_bytes(flipped(content, position + 2, 4))
    assert not same(torch.load(path))  # torch itself reads it without a word
    with pytest.raises(
        CheckpointError, match=r'a\.pth is damaged: its record a/data/0 cannot .*checksum differs.*Copy'
    ):
        load(str(path))
    assert 'its record a/data/0' in damage(path)
    path.write_bytes(content)
    assert damage(path) is None


def test_a_file_object_is_verified_and_read_from_its_start():
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer)
    buffer.seek(0)
    assert same(safe_load(buffer))
    content = buffer.getvalue()
    position = content.index(torch.tensor([7.0, 8.0]).numpy().tobytes())
    with pytest.raises(CheckpointError, match=r'^the checkpoint is damaged: its record archive/data/0'):
        safe_load(io.BytesIO(flipped(content, position, 0)))


def test_an_archive_that_was_saved_without_checksums_is_read(tmp_path):
    path = tmp_path / 'a.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, path)
    finally:
        torch.serialization.set_crc32_options(True)
    check_archive(path)
    assert same(load_checkpoint_file(path))
    assert damage(path) is None


@pytest.mark.parametrize('cut', [0, 1, 100, -1, -30, -400])
def test_a_cut_file_is_refused(tmp_path, cut):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r'a\.pth is (empty|truncated|not a checkpoint|damaged)'):
        load_checkpoint_file(path)
    assert 'a.pth is ' in damage(path)


def test_the_old_format_is_read_to_find_its_damage(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    assert damage(path) is None
    path.write_bytes(path.read_bytes()[:-40])
    assert 'a.pth ' in damage(path)
    assert 'missing.pth does not exist' in damage(tmp_path / 'missing.pth')


def test_a_safetensors_file_of_ours_has_a_checksum(tmp_path):
    path = tmp_path / 'a.safetensors'
    tensors = {
        **CONTENT['state_dict'],
        'half': torch.ones(3, 2, dtype=torch.bfloat16),
        'flags': torch.tensor([True, False]),
        'none': torch.zeros(0, 4),
    }
    write_safetensors(path, tensors, dict(made_by='a test'))
    loaded = load_checkpoint_file(path)
    assert loaded['meta'] == dict(made_by='a test')
    assert all(torch.equal(loaded['state_dict'][name], tensor) for name, tensor in tensors.items())
    size, choose = path.stat().st_size, random.Random(1)
    assert harmless_flips(path, range(0, size, 3), choose) <= 60  # spaces that pad the header
    assert damage(path) is None
    content = path.read_bytes()
    path.write_bytes(flipped(content, size - 20, 2))
    assert 'a.safetensors is damaged: the checksum of its content differs' in damage(path)
    save_file(tensors, path, dict(made_by='another program'))
    assert load_checkpoint_file(path)['meta'] == dict(made_by='another program')


@pytest.mark.skipif(os.name != 'posix', reason='permissions of POSIX')
def test_a_file_that_the_system_cannot_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    torch.save(CONTENT, path)

    def fails(name, *args, **kwargs):
        raise OSError(errno.EIO, 'Input/output error', name)

    monkeypatch.setattr('builtins.open', fails)
    with pytest.raises(CheckpointError, match=r'a\.pth cannot be read \(Input/output error\)'):
        load_checkpoint_file(path)
