# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations of the pre-trainings that docs/benchmarks/backbones.md compares."""

import re
from pathlib import Path

from pretraining_flops import main

PRETRAIN = Path(__file__).parents[2] / 'configs/pretrain'


def total(capsys, name: str) -> float:
    """TFLOPs of a whole pre-training."""
    main([str(PRETRAIN / name), '--steps', '2', '--batch-size', '2'])
    return float(re.search(r'([\d.]+) TFLOPs$', capsys.readouterr().out.strip())[1])


def test_the_nano_mae_costs_as_much_as_the_shipped_addp(capsys):
    mae = total(capsys, 'mae_vit-nano-p8_1xb64-fp32-10k_fashion-scenes-64px.py')
    # By hand, matrix products of a multiplication and an addition: 17 tokens in 6 blocks and 65 in
    # 2, the embedding of 64 patches, the two projections of the decoder; twice that in the backward
    # pass, without the gradient of the images.
    block = 2 * 12 * 128**2
    attention = 4 * 128 * (6 * 17**2 + 2 * 65**2)
    embedding, decoder = 2 * 64 * 192 * 128, 2 * 128 * (17 * 128 + 65 * 192)
    image = 3 * (block * (6 * 17 + 2 * 65) + attention + decoder) + 2 * embedding
    assert abs(mae / (image * 10150 * 64 / 1e12) - 1) < 0.01
    addp = total(capsys, 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
    assert 0.93 < mae / addp < 1.07  # two noise levels; the mean over all is 0.97


def test_a_predictor_on_stored_ids_is_counted_without_a_tokenizer(capsys):
    counted = total(capsys, 'token-predictor_nano-p8_from-ids_1xb64-bf16-30k_fashion-scenes-64px.py')
    # By hand, as above: 33 positions in the encoder's 4 blocks (half of 64 are dropped), 65 in the
    # decoder's 2; the projections between them and before the logits; the logits of 512 codes at
    # the masked positions: 50 to 100 %.
    blocks = 2 * 12 * 128**2 * (4 * 33 + 2 * 65) + 4 * 128 * (4 * 33**2 + 2 * 65**2)
    image = blocks + 2 * 128**2 * (33 + 64) + 2 * 0.7 * 64 * 128 * 512
    assert abs(counted / (3 * image * 30_000 * 64 / 1e12) - 1) < 0.03
