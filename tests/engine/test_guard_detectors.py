# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detectors that look at what a training logs, and what each training gets of them."""

import math

import pytest
import torch
from helpers import tiny_vqgan
from helpers.tiny_pretraining import build_runner
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.nn.functional import cross_entropy

from addp_mm.checks.moved_options import check_moved_options
from addp_mm.config.config_file import ConfigError
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.tokens.token_store import TokenWriter
from addp_mm.engine.guards import CodeUsageGuard, ConstantPredictionGuard, LossScaleGuard
from addp_mm.engine.guards.batch_names import batch_names
from addp_mm.engine.hooks import TrainingCollapsedError
from addp_mm.models.losses.constant_prediction import constant_prediction
from addp_mm.models.losses.masked_token_loss import masked_token_losses
from addp_mm.models.losses.soft_target_cross_entropy import SoftTargetCrossEntropy


def test_no_constant_prediction_is_better_than_the_frequencies():
    ids = torch.tensor([0, 0, 0, 1, 4, 4])
    found = masked_token_losses(torch.zeros(6, 7), ids, 0.1)['constant_prediction']
    logits = torch.zeros(7, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(logits.expand(6, 7), ids, label_smoothing=0.1)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert found.item() == pytest.approx(closure().item(), abs=1e-5)
    soft = SoftTargetCrossEntropy(0.1, loss_weight=2.0)
    target = torch.eye(5)[ids]
    assert soft.constant_prediction(target, 7).item() == pytest.approx(2 * found.item(), abs=1e-6)
    assert constant_prediction(torch.full((4,), 0.25), 0.0, 4).item() == pytest.approx(math.log(4))


def test_a_loss_that_stays_at_the_frequencies_is_found_after_a_share_of_the_training():
    guard = ConstantPredictionGuard(margin=0.1, window=2, after=0.5)
    checks = [guard.check(2.0, 2.05, iteration, 10) for iteration in range(1, 7)]
    assert checks[:4] == [None] * 4
    assert 'last 2 iterations is 0.05 nats below the entropy of the code frequencies' in checks[4]
    assert '0.45 nats above' in guard.check(3.0, 2.05, 8, 10)
    learning = ConstantPredictionGuard(margin=0.1, window=2, after=0.0)
    assert [learning.check(1.8, 2.0, iteration, 10) for iteration in range(1, 4)] == [None] * 3


def test_codes_that_are_used_less_and_less_are_found():
    guard = CodeUsageGuard(min_share=0.5, window=2)
    found = [guard.check(value) for value in (30.0, 30.0, 20.0, 8.0)]
    assert found[:3] == [None] * 3
    assert '14, less than 0.5 of its best value 30' in found[3]
    again = CodeUsageGuard(min_share=0.5, window=2)
    again.load(guard.state())
    assert again.check(8.0) == guard.check(8.0)


def test_a_loss_scale_may_fall_and_recover():
    guard = LossScaleGuard(min_scale=1.0, max_skips=2)
    assert [guard.check(scale, True) for scale in (8, 4, 4, 2, 2, 4)] == [None] * 6
    # passes without a step do not count
    assert [guard.check(scale, stepped) for scale, stepped in ((2, True), (2, False))] == [None] * 2
    assert '2 steps in a row' in guard.check(1, True)


def test_a_model_that_does_not_learn_stops_and_a_training_of_tokens_is_checked_by_default(tmp_path):
    guard = dict(constant=dict(margin=50.0, window=2, after=0.0))
    with pytest.raises(
        TrainingCollapsedError, match=r'iteration 2 .*loss stays at that of a constant prediction.*resume|restart'
    ):
        build_runner(tmp_path / 'constant', guard=guard).train()
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*below the floor'):
        build_runner(tmp_path / 'floor', guard=dict(collapse=dict(floor=100.0, window=2))).train()


def test_a_tokenizer_whose_codes_collapse_goes_back(tmp_path):
    class Usage(Hook):
        priority = 'HIGHEST'
        values = iter([20.0, 20.0, 20.0, 2.0, 20.0, 20.0, 20.0])

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            outputs['perplexity'] = torch.tensor(next(self.values))

    hook = dict(type='addp_mm.TrainingGuardHook', policy='rollback', codes=dict(window=1))
    runner = tiny_vqgan.build_runner(tmp_path, tiny_vqgan.build(), [Usage(), hook], max_iters=5, checkpoint_interval=2)
    runner.train()
    assert torch.load(tmp_path / 'iter_4.pth', weights_only=False)['training_guard']['rollbacks'] == 1
    assert next(Usage.values, None) is None


@pytest.mark.parametrize(
    'hook, words',
    [
        (dict(type='addp_mm.FiniteLossHook'), 'remove FiniteLossHook'),
        (
            dict(type='addp_mm.GenerativePretrainHook', on_failure='rollback'),
            'on_failure is now policy of default_hooks.guard',
        ),
        (dict(type='addp_mm.GenerativePretrainHook', guard=dict(window=3)), 'guard is now collapse'),
    ],
)
def test_options_of_earlier_versions_name_the_new_ones(hook, words):
    check_moved_options(Config(dict(custom_hooks=[dict(type='EMAHook')])))
    with pytest.raises(ConfigError, match=words):
        check_moved_options(Config(dict(custom_hooks=[hook])))


def test_stored_ids_are_named_by_shard_and_row(tmp_path):
    ids = torch.randint(32, (6, 2, 16), generator=torch.Generator().manual_seed(0)).numpy()
    writer = TokenWriter(
        tmp_path, dict(tokenizer={}, images={}, views={}, shard=dict(index=0, of=1)), ids.shape, 'uint16'
    )
    writer.write(ids, {})
    writer.save()
    batch = dict(inputs=torch.from_numpy(ids[[4, 1], [0, 1]]))
    names = batch_names(batch, TokenIds(tmp_path))
    assert [name.split('/')[-1].partition(' ')[2] for name in names] == ['row 4 view 0', 'row 1 view 1']
    assert batch_names(dict(inputs=torch.ones(1, 16, dtype=torch.long)), TokenIds(tmp_path)) == [
        'sample 0 of the batch'
    ]
    assert batch_names(dict(inputs=torch.ones(2, 3, 4, 4))) == ['sample 0 of the batch', 'sample 1 of the batch']
