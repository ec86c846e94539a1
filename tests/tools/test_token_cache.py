# Copyright (c) addp_mm contributors. Apache-2.0.
"""The benchmark of stored ids: its comparison and its page. Nothing is timed in the tests."""

from argparse import Namespace
from pathlib import Path

import pytest
import token_cache as tool

ROOT = Path(__file__).parents[2]


def test_both_trainings_have_one_predictor_and_one_loss():
    args = Namespace(images=str(ROOT / tool.IMAGES), ids=str(ROOT / tool.IDS), tokens='elsewhere')
    images, ids = tool.configs(args, drop_ratio=0.25)
    assert ids.model.tokenizer is None
    assert images.model.tokenizer.type == 'addp_mm.VQTokenizer'
    assert ids.train_dataloader.dataset.data_root == 'elsewhere'
    same = set(ids.model) - {'tokenizer'}
    assert {key: images.model[key] for key in same} == {key: ids.model[key] for key in same}
    assert ids.model.drop_ratio == 0.25
    assert images.optim_wrapper == ids.optim_wrapper


def test_the_page_is_checked_before_anything_is_timed(tmp_path):
    with pytest.raises(SystemExit, match='error: --out .* is a folder'):
        tool.main(['--ids', 'no_such_config.py', '--out', str(tmp_path)])


def test_the_section_has_medians_and_replaces_only_itself(tmp_path):
    pairs = [tool.Pair(2.0, 8.0), tool.Pair(4.0, 8.0), tool.Pair(4.0, 20.0)]
    args = Namespace(images=tool.IMAGES, ids=tool.IDS, tokens=None, pairs=3, steps=7)
    text = tool.section(args, {0.5: pairs, 0.0: pairs[:1]}, 16)
    assert '| 50% of the tokens dropped in the encoder | 4.00 | 8.00 | **4.0** (2.0 to 5.0) |' in text
    assert '| all tokens in the encoder | 2.00 | 8.00 | **4.0** (4.0 to 4.0) |' in text
    assert 'token_cache.py --pairs 3 --steps 7\n' in text
    page = tmp_path / 'docs/page.md'
    tool.write_section(page, text)
    assert page.read_text().startswith('# Pre-training on your own images\n\n## Predictor from stored ids\n')
    page.write_text('# Title\n\n## Before\n\nkept\n\n## Predictor from stored ids\n\nold\n\n## After\n\nkept too\n')
    tool.write_section(page, text)
    once = page.read_text()
    assert 'old' not in once
    assert once.index('kept\n') < once.index('**4.0**') < once.index('## After\n\nkept too\n')
    tool.write_section(page, text)
    assert page.read_text() == once
