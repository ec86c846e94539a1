# Copyright (c) addp_mm contributors. Apache-2.0.
"""Memory-mapped files that are cut short, before and while a worker reads them."""

import os

import numpy as np
import pytest
from helpers.faulty_data import CurrentSamples, WatchedDataset
from torch.utils.data import DataLoader

from addp_mm.datasets.faults.worker_faults import WorkerError, named_worker_faults
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.tokens.token_store import TokenStoreError, TokenWriter

ROWS = 4096


@pytest.fixture
def ids(tmp_path):
    settings = dict(
        tokenizer=dict(fingerprint='a' * 64, codebook_size=64),
        images=dict(count=ROWS, fingerprint='b'),
        views=dict(count=1, augmentation='crop'),
        shard=dict(index=0, of=1),
        notes={},
    )
    writer = TokenWriter(tmp_path / 'ids', settings, (ROWS, 1, 16), 'uint16')
    writer.write(np.ones((ROWS, 1, 16), np.uint16), {})
    writer.save()
    return tmp_path / 'ids'


def test_ids_that_are_cut_before_a_training_are_refused(ids):
    path = ids / 'ids.npy'
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(TokenStoreError, match=r'ids\.npy: cannot be read'):
        TokenIds(ids)


def test_ids_that_are_cut_in_a_training_are_named_with_their_row(ids):
    dataset = WatchedDataset(TokenIds(ids), CurrentSamples(1), 5, None)
    os.truncate(ids / 'ids.npy', 8192)
    words = rf'was ended by SIGBUS: it was reading {ids}/ids.npy, row \d+. A file became shorter'
    with pytest.raises(WorkerError, match=words), named_worker_faults():
        list(DataLoader(dataset, 64, num_workers=1, timeout=120))
