# Copyright (c) addp_mm contributors. Apache-2.0.
"""The benchmark of stored ids: its comparison and its table. Nothing is timed in the tests."""

from argparse import Namespace
from pathlib import Path

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


def test_a_row_has_medians_and_the_range_of_the_ratio():
    pairs = [tool.Pair(2.0, 8.0), tool.Pair(4.0, 8.0), tool.Pair(4.0, 20.0)]
    assert tool.row(0.5, pairs) == '| 0.5 | 4.00 | 8.00 | 4.0 (2.0 to 5.0) |'
