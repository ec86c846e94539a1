# Copyright (c) addp_mm contributors. Apache-2.0.
"""The inputs that the fuzzer kept: each is read, or refused with an error for users."""

import logging
from pathlib import Path

import pytest
from fuzz_targets import PLACES, attempt, load

from addp_mm.config import registered_types

CORPUS = Path(__file__).parent / 'corpus'
MOST = 300_000  # bytes of all inputs


@pytest.fixture(autouse=True)
def without_logs():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _limits_end(monkeypatch):
    monkeypatch.setattr(registered_types, '_is_limited', False)


@pytest.mark.filterwarnings('ignore')
# a database that is cut short ends the process: LMDB maps it into memory and trusts it
@pytest.mark.parametrize('name', [name for name in PLACES if name != 'lmdb'])
def test_kept_inputs_are_read_or_refused(name):
    target = load(name)
    seeds = [attempt(target, seed) for seed in target.seeds()]
    assert 'accepted' in seeds
    files = sorted((CORPUS / name).glob('*'))
    assert files
    for file in files:
        try:
            attempt(target, file.read_bytes())
        except Exception as error:
            raise AssertionError(f'{file}: {type(error).__name__}: {error}') from error


def test_the_kept_inputs_are_small_and_have_a_target():
    files = [file for file in CORPUS.rglob('*') if file.is_file() and file.name != 'README.md']
    assert {file.parent.name for file in files} == set(PLACES) - {'lmdb'}
    assert sum(file.stat().st_size for file in files) < MOST
