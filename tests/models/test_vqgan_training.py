# Copyright (c) addp_mm contributors. Apache-2.0.
"""A VQGAN in a Runner: the hooks at the discriminator's start, moving averages, resuming."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_vqgan import OPTIM_WRAPPER, build, build_runner, optimizers
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import EMAHook, Hook

from addp_mm.config.config_file import ConfigError
from addp_mm.engine.hooks import AdversarialStartHook, CodeRestartHook, TrainingCollapsedError
from addp_mm.engine.optimizers import JointOptimWrapperDict
from addp_mm.engine.runner_cfg import set_amp

SCHEDULE = dict(start=1, alone=1, ramp=1)


class LastLayer(BaseMetric):
    """Keeps the weights that are validated."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(1)

    def compute_metrics(self, results) -> dict:
        weights.append(validated.tokenizer.decoder.conv_out.weight.detach().clone())
        return dict(seen=len(results))


weights, validated = [], None


class Psnr(Hook):
    """Replaces the PSNR by given numbers, one after the other, before the hook reads it."""

    priority = 'VERY_HIGH'

    def __init__(self, values) -> None:
        self.values, self.scales = iter(values), []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        outputs['psnr'] = torch.tensor(float(next(self.values)))
        self.scales.append(runner.model.adversarial_scale.item())


class Lines(Hook):
    """Keeps the warnings."""

    def before_train(self, runner) -> None:
        self.lines = []
        runner.logger.warning = self.lines.append


def guarded(tmp_path, psnr, max_iters=None, checkpoint=None, resume=None, **options):
    chosen, lines = Psnr(psnr), Lines()
    guard = dict(dict(type='addp_mm.AdversarialStartHook', window=2, watch=6), **options)
    settings = dict(checkpoint=checkpoint) if checkpoint else {}
    runner = build_runner(
        tmp_path,
        build(schedule=SCHEDULE),
        [chosen, lines, guard],
        max_iters=max_iters or len(psnr),
        resume=resume,
        **settings,
    )
    return runner, chosen, lines


def test_a_steady_start_changes_nothing(tmp_path):
    runner, chosen, lines = guarded(tmp_path, [20, 20, 19.5, 19.2, 19.1, 20, 20])
    runner.train()
    assert chosen.scales == [1.0] * 7
    assert lines.lines == []
    history = runner.message_hub.log_scalars
    assert history['train/psnr_drop'].data[0].tolist() == pytest.approx([0.5, 0.65, 0.85, 0.45, 0])
    assert history['train/psnr_mean'].data[0].tolist()[:4] == pytest.approx([20, 20, 19.5, 19.35])


def test_a_drop_lowers_the_weight_and_is_logged(tmp_path):
    """3 dB in the first window; 2 dB in the next window; the third drop only warns."""
    runner, chosen, lines = guarded(tmp_path, [20, 20, 17, 17, 18, 18, 15, 15, 3], factor=0.5, max_answers=2)
    runner.train()
    assert chosen.scales == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert len(lines.lines) == 3
    assert 'fallen by 3.00 dB from 20.00 dB' in lines.lines[0]
    assert runner.model.state_dict()['adversarial_scale'] == 0.25


def test_a_warning_changes_nothing(tmp_path):
    runner, chosen, lines = guarded(tmp_path, [20, 20, 17, 17, 20], action='warn')
    runner.train()
    assert len(lines.lines) == 1
    assert chosen.scales == [1.0] * 5


def test_a_rollback_goes_to_the_start_with_less_weight(tmp_path):
    """Two good iterations, two bad ones, back, and four good ones."""
    runner, chosen, lines = guarded(tmp_path, [20, 20, 17, 17, 20, 20, 20, 20], max_iters=6, action='rollback')
    states = []

    class Keep(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            if runner.iter == 2:
                states.append({name: value.clone() for name, value in runner.model.state_dict().items()})

    runner.register_hook(Keep())
    runner.train()
    assert runner.iter == 6
    assert len(lines.lines) == 1
    assert 'rollback 1 of 3' in lines.lines[0]
    first, second = states
    assert [name for name in first if not torch.equal(first[name], second[name])] == ['adversarial_scale']
    assert chosen.scales == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert (tmp_path / 'before_discriminator_2.pth').is_file()


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain'])
def test_a_rollback_restores_weights_and_their_averages(tmp_path, scope):
    """mmengine's hook swaps averages and weights unless the training is resumed."""
    chosen, lines = Psnr([20, 20, 17, 17, 20, 20]), Lines()
    hooks = [
        dict(type=f'{scope}.EMAHook', momentum=0.3),
        chosen,
        lines,
        dict(type='addp_mm.AdversarialStartHook', window=2, watch=6, action='rollback'),
    ]
    runner = build_runner(tmp_path, build(schedule=SCHEDULE), hooks, max_iters=4)
    states = []

    class Keep(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model
            if runner.iter == 2:
                states.append(
                    [
                        {
                            name: value.clone()
                            for name, value in part.state_dict().items()
                            if 'adversarial_scale' not in name
                        }
                        for part in (runner.model, average)
                    ]
                )

    runner.register_hook(Keep())
    runner.train()
    before, after = states
    assert 'rollback 1 of 3' in lines.lines[0]
    assert any(not torch.equal(value, before[1][f'module.{name}']) for name, value in before[0].items())
    for then, now in zip(before, after, strict=True):
        assert then.keys() == now.keys()
        assert [name for name in then if not torch.equal(then[name], now[name])] == []
    assert not runner._resume


@pytest.mark.parametrize('hook', ['CheckpointHook', 'addp_mm.CheckpointHook'])
def test_the_window_of_a_resumed_training_is_that_of_an_uninterrupted_one(tmp_path, hook):
    values = [20.0, 21.0, 19.5, 19.0, 18.5, 20.5, 20.25]
    whole, _, _ = guarded(tmp_path / 'whole', values, action='warn', checkpoint=dict(type=hook, interval=1))
    whole.train()
    expected = torch.load(tmp_path / 'whole/iter_7.pth', weights_only=False)['adversarial_start']
    assert expected['recent'] == values[-2:]
    assert expected['before'] == 20.5
    for start in (1, 2, 3, 5):
        path = str(tmp_path / f'whole/iter_{start}.pth')
        resumed, _, _ = guarded(
            tmp_path / str(start), values[start:], 7, action='warn', checkpoint=dict(type=hook), resume=path
        )
        resumed.train()
        assert torch.load(tmp_path / f'{start}/iter_7.pth', weights_only=False)['adversarial_start'] == expected, start
        for name in ('train/psnr_mean', 'train/psnr_drop'):
            history = [one.message_hub.log_scalars[name].data[0].tolist() for one in (whole, resumed)]
            assert history[0] == history[1], (start, name)


def test_the_checkpoint_at_the_start_is_a_complete_iteration(tmp_path):
    runner, _, _ = guarded(
        tmp_path, [20, 20, 20], action='rollback', checkpoint=dict(type='addp_mm.CheckpointHook', interval=1)
    )
    runner.train()
    [name] = [path.name for path in tmp_path.glob('before_discriminator_*.pth')]
    start, regular = (torch.load(tmp_path / one, weights_only=False) for one in (name, f'iter_{name[21:-4]}.pth'))
    assert start['meta']['iter'] == regular['meta']['iter'] == 2
    for name, value in regular['state_dict'].items():
        assert torch.equal(value, start['state_dict'][name]), name
    assert start['param_schedulers'] == regular['param_schedulers']
    assert start['adversarial_start']['before'] == regular['adversarial_start']['before'] == 20


def test_rollbacks_come_to_an_end(tmp_path):
    runner, _, lines = guarded(tmp_path, [20, 20, 17, 17, 17, 17], action='rollback', max_answers=1)
    with pytest.raises(TrainingCollapsedError, match='1 rollback'):
        runner.train()
    assert len(lines.lines) == 1


def test_a_drop_can_stop_the_training(tmp_path):
    with pytest.raises(TrainingCollapsedError, match=r'3\.00 dB.*lecam_weight'):
        guarded(tmp_path, [20, 20, 17, 17], action='stop')[0].train()


def test_a_psnr_of_nan_does_not_count(tmp_path):
    runner, chosen, _ = guarded(tmp_path, [20, float('nan'), 19.5, 19.5])
    runner.train()
    assert chosen.scales == [1.0] * 4
    assert runner.message_hub.log_scalars['train/psnr_mean'].data[0].tolist() == [20, 20, 19.5, 19.5]


def test_the_hook_refuses_models_that_it_cannot_monitor(tmp_path):
    with pytest.raises(ConfigError, match='IterBasedTrainLoop'):
        build_runner(
            tmp_path, build(), [dict(type='addp_mm.AdversarialStartHook', action='rollback')], by_epoch=True
        ).train()
    with pytest.raises(ValueError, match='action'):
        AdversarialStartHook(action='hope')
    with pytest.raises(ValueError, match='window'):
        AdversarialStartHook(window=10, watch=10)


def test_moving_averages_are_validated_and_saved(tmp_path):
    global validated
    weights.clear()
    validated = build(schedule=SCHEDULE)
    history = []

    class Record(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            history.append(runner.model.tokenizer.decoder.conv_out.weight.detach().clone())

    hooks = [dict(type='EMAHook', momentum=0.3, begin_iter=2), Record()]
    runner = build_runner(tmp_path, validated, hooks, checkpoint_interval=3, evaluator=Evaluator(LastLayer()))
    runner.train()
    # copies up to iteration 2: the first update also copies
    average = history[1]
    expected = []
    for latest in history[2:]:
        average = 0.7 * average + 0.3 * latest
        expected.append(average)
    torch.testing.assert_close(weights[0], expected[0])
    torch.testing.assert_close(weights[1], expected[3])
    torch.testing.assert_close(validated.tokenizer.decoder.conv_out.weight, history[-1])
    saved = torch.load(tmp_path / 'iter_6.pth', weights_only=False)
    name = 'tokenizer.decoder.conv_out.weight'
    torch.testing.assert_close(saved['state_dict'][name], expected[3])
    torch.testing.assert_close(saved['ema_state_dict'][f'module.{name}'], history[-1])


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    settings = dict(schedule=SCHEDULE, lecam_weight=0.1, codebook='ema')
    hooks = [dict(type='EMAHook', momentum=0.3), dict(type='addp_mm.AdversarialStartHook', window=2, watch=6)]
    whole = build_runner(tmp_path / 'whole', build(**settings), hooks, checkpoint_interval=4)
    whole.train()
    resumed = build_runner(
        tmp_path / 'resumed',
        build(seed=1, **settings),
        [*hooks, dict(type='addp_mm.PreflightHook')],
        resume=str(tmp_path / 'whole' / 'iter_4.pth'),
    )
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.message_hub.log_scalars['train/discriminator.lr'].current() > 0


def test_components_of_the_optimizer():
    model = build()
    wrapper = optimizers(model, clip_grad=dict(max_norm=1e-3))
    assert isinstance(wrapper, JointOptimWrapperDict)
    names = {id(p): name for name, p in model.named_parameters()}
    for part, one in wrapper.items():
        assert {names[id(p)] for group in one.param_groups for p in group['params']} == {
            name for name in names.values() if name.startswith(part)
        }
        assert one.grad_name == f'{part}_grad_norm'
    from mmengine.optim import build_optim_wrapper

    both = dict(OPTIM_WRAPPER)
    with pytest.raises(ConfigError, match='no optimizer trains discriminator'):
        build_optim_wrapper(model, {key: value for key, value in both.items() if key != 'discriminator'})
    with pytest.raises(ConfigError, match='critic is not a component'):
        build_optim_wrapper(model, dict(both, critic=dict(optimizer=dict(type='SGD', lr=1.0))))
    with pytest.raises(ConfigError, match='agree'):
        build_optim_wrapper(model, dict(both, tokenizer=dict(both['tokenizer'], accumulative_counts=2)))
    with pytest.raises(ConfigError, match='paramwise_cfg'):
        build_optim_wrapper(model, dict(both, paramwise_cfg=dict(bias_decay_mult=0.0)))


def test_amp_is_set_for_each_component():
    cfg = Config(dict(optim_wrapper=dict(OPTIM_WRAPPER)))
    set_amp(cfg, 'bfloat16')
    for part in ('tokenizer', 'discriminator'):
        assert cfg.optim_wrapper[part].type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper[part].dtype == 'bfloat16'
    assert 'type' not in cfg.optim_wrapper


def test_the_restart_hook_refuses_other_models():
    with pytest.raises(TypeError, match='tokenizer training'):
        CodeRestartHook().before_train(SimpleNamespace(model=torch.nn.Linear(1, 1)))
