# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/test.py and tools/train.py with checkpoints that changed on disk."""

import math
import shutil

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(workplace, trained):
    """A copy of the work dir of a training of two epochs."""
    folder = workplace / 'damaged'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained, folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def check_refused(finished, *words):
    errors = [line for line in finished.output.splitlines() if line.startswith('error: ')]
    assert finished.status == 1, finished.output
    assert len(errors) == 1
    assert all(word in errors[0] for word in words), errors
    assert 'Traceback' not in finished.output


def test_flipped_bytes_and_nan_weights_are_not_tested_or_resumed(copied, run_tool):
    path = copied / 'epoch_2.pth'
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=False)['state_dict']['head.fc.weight']
    start = content.index(weight.numpy().tobytes())
    content[start : start + 64] = bytes(byte ^ 16 for byte in content[start : start + 64])
    path.write_bytes(content)
    check_refused(run_tool('test.py', 'tiny.py', path), 'epoch_2.pth is damaged: its record archive/data/', 'checksum')
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', copied, '--resume', '--cfg-options', 'train_cfg.max_epochs=3'
    )
    assert finished.status == 0, finished.output
    assert 'epoch_2.pth is damaged: its record archive/data/' in finished.output
    assert f'training continues from {copied / "epoch_1.pth"}' in finished.output
    checkpoint = torch.load(path, weights_only=False)  # it was written again
    assert checkpoint['meta']['epoch'] == 2
    checkpoint['state_dict']['head.fc.weight'][0, :3] = math.nan
    torch.save(checkpoint, path)
    words = 'epoch_2.pth has weights that are NaN or Inf: head.fc.weight (3 of 32 values)'
    check_refused(run_tool('test.py', 'tiny.py', path), words)
    check_refused(run_tool('train.py', 'tiny.py', '--work-dir', copied, '--resume', path), words)
