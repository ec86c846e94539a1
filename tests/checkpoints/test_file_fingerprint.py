# Copyright (c) addp_mm contributors. Apache-2.0.
"""The fingerprint of a file is that of all its bytes."""

import hashlib

import pytest

from addp_mm.checkpoints import file_fingerprint


@pytest.mark.parametrize('size', [0, 1, 4, 9])
def test_a_file_of_any_number_of_blocks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(file_fingerprint, '_BLOCK', 4)
    content = bytes(range(size))
    path = tmp_path / 'weights'
    path.write_bytes(content)
    assert file_fingerprint.file_fingerprint(path) == hashlib.sha256(content).hexdigest()
