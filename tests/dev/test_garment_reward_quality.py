# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of how well a classifier of garments serves as a reward."""

import torch
from garment_reward_quality import class_rewards, load_tokenizer, row

from addp_mm.datasets.fashion.fashion_mnist import CLASSES


def test_rewards_of_each_class_are_side_by_side():
    found = class_rewards(lambda images, labels: images.mean((1, 2, 3)) - labels, torch.ones(2, 3, 4, 4))
    assert found.tolist() == [[1.0 - label for label in range(len(CLASSES))]] * 2


def test_a_row_has_accuracy_confidence_and_log_probabilities():
    log_probs = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]]).log()
    cells = row('images', log_probs, torch.tensor([0, 1, 1, 1]))
    assert cells[:4] == ['images', '4', '75.0%', '70.0%']
    assert cells[4].startswith('-0.71 (')  # (ln 0.8 + ln 0.2 + 2 ln 0.6) / 4
    assert cells[5] == '-0.92'  # (ln 0.2 + ln 0.8 + 2 ln 0.4) / 4


def test_the_tokenizer_is_the_shipped_one():
    tokenizer = load_tokenizer()
    assert not tokenizer.training
    assert tokenizer.decode(tokenizer.encode(torch.rand(1, 3, 64, 64))[1]).shape == (1, 3, 64, 64)
