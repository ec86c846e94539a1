# Copyright (c) addp_mm contributors. Apache-2.0.
"""A class-conditional training that is resumed drops the labels of an uninterrupted one."""

import torch
from helpers import tiny_components
from helpers.tiny_pretraining import build_runner

from addp_mm.models.selfsup import mark_loaded

SPACE = dict(codebook_size=16, num_class_slots=4, fake_class_slot=3, num_classes=3)


def conditional_model():
    torch.manual_seed(0)
    model = tiny_components.build(
        class_drop_rate=0.5, **{name: dict(token_space=SPACE) for name in ('predictor', 'neck', 'head')}
    )
    for part in model.frozen_components.values():
        mark_loaded(part)
    return model


def train(work_dir, **options):
    """Train; return the model and the labels of each iteration after dropping."""
    runner, seen = build_runner(work_dir, model=conditional_model(), num_classes=3, **options), []
    runner.model.neck.register_forward_hook(lambda _, given, __: seen.append(given[3].tolist()))
    runner.train()
    return runner.model, seen


def test_a_resumed_training_drops_the_same_labels(tmp_path):
    whole, labels = train(tmp_path / 'whole', max_iters=6)
    train(tmp_path / 'parts', max_iters=4)
    resumed, later = train(tmp_path / 'parts', max_iters=6, load_from=str(tmp_path / 'parts/iter_2.pth'), resume=True)
    assert later == labels[2:]
    assert len({tuple(row) for row in labels}) > 2
    assert {label for row in labels for label in row} == {-1, 0, 1, 2}
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_another_seed_drops_other_labels(tmp_path):
    assert train(tmp_path / 'a', max_iters=2)[1] != train(tmp_path / 'b', max_iters=2, seed=1)[1]
