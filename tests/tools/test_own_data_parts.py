# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parts of tools/pretrain_from_folder.py, each by itself: work dirs, trial steps, loaders, kinds of sources."""
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module', autouse=True)
def tools_on_path():
    sys.path.insert(0, str(ROOT / 'tools'))
    yield
    sys.path.remove(str(ROOT / 'tools'))


def test_a_used_work_dir_is_begun_anew_with_other_images(tmp_path):
    from own_data.state import MARKER, StateError, begin_anew, claim
    claim(tmp_path, dict(images='a', channels=3))
    (tmp_path / 'tokenizer').mkdir()
    (tmp_path / '.images.index-x1').mkdir()
    left = ['.images.index-x1/names', 'images.index', 'trial.json', 'trial_spec.json', 'trial.log', 'tokenize.log',
            'report.html', 'broken_images_images_train.txt']
    for name in left:
        (tmp_path / name).write_text('')
    begin_anew(tmp_path, 'tokenizer')
    assert not (tmp_path / 'tokenizer').exists() and not list(tmp_path.glob('*images.index*'))
    claim(tmp_path, dict(images='b', channels=1), anew=True)
    assert json.loads((tmp_path / MARKER).read_text()) == dict(images='b', channels=1)
    with pytest.raises(StateError, match='images b -> a'):
        claim(tmp_path, dict(images='a', channels=1))


def test_what_a_kill_during_listing_leaves_is_nothing_strange(tmp_path):
    from own_data.state import StateError, claim
    begun, other = tmp_path / 'begun', tmp_path / 'other'
    (begun / '.images.index-x1').mkdir(parents=True)
    other.mkdir()
    (other / 'thesis.tex').write_text('')
    claim(begun, dict(images='a'))
    # asking for a new beginning makes nobody else's folder this tool's
    with pytest.raises(StateError, match=r'holds thesis.tex and is no work dir'):
        claim(other, dict(images='a'), anew=True)
