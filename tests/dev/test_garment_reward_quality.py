# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of how well a classifier of garments serves as a reward."""

import torch
from garment_reward_quality import class_rewards, generated_garments, load_tokenizer, row
from PIL import Image

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


def test_classes_of_generated_garments_follow_their_numbers(tmp_path):
    for number in range(12):
        Image.new('RGB', (4, 4), (20 * number,) * 3).save(tmp_path / f'{number:06}.png')
    images, labels = generated_garments(tmp_path)
    assert labels.tolist() == [*range(10), 0, 1]
    assert torch.equal(images[:, 0, 0, 0], 20 * torch.arange(12) / 255)


def test_the_tokenizer_is_the_shipped_one():
    tokenizer = load_tokenizer()
    assert not tokenizer.training
    assert tokenizer.decode(tokenizer.encode(torch.rand(1, 3, 64, 64))[1]).shape == (1, 3, 64, 64)
