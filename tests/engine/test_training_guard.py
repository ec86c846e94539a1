# Copyright (c) addp_mm contributors. Apache-2.0.
"""Non-finite losses and gradients are found before the optimizer's step."""

import math

import pytest
import torch
from helpers import tiny_vqgan
from helpers.guarded import BadGradient, States, build, different, state_of

from addp_mm.engine.guards import guarded_steps
from addp_mm.engine.guards.failed_batch import read_event
from addp_mm.engine.guards.plain_data import from_plain
from addp_mm.engine.hooks import TrainingCollapsedError, TrainingGuardHook

SKIP = dict(policy=dict(loss='skip', gradients='skip'))


def guard_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, TrainingGuardHook))


def test_a_bad_image_stops_with_its_name_and_leaves_the_weights_good(tmp_path):
    runner = build(tmp_path / 'run', {}, bad=9)
    with pytest.raises(TrainingCollapsedError) as error:
        runner.train()
    text = str(error.value)
    for part in ('iteration 3 (', 'the loss is not finite', 'images/8.png, images/9.png', 'iter_2.pth: resume'):
        assert part in text
    assert '\n' not in text
    earlier = build(tmp_path / 'earlier', {}, bad=9, max_iters=2)
    earlier.train()
    buffers = {name for name, _ in runner.model.named_buffers()}
    assert set(different(state_of(earlier), state_of(runner))) <= buffers
    event = read_event(tmp_path / 'run/failed_batches/iter_3_rank_0.pth')
    assert event['kind'] == 'loss'
    assert event['names'] == [f'images/{number}.png' for number in (8, 9, 10, 11)]
    assert (event['iteration'], event['seed'], event['precision']['dtype']) == (3, 3, None)
    assert math.isnan(event['outputs']['loss'])
    assert event['config']['model'] == dict(type='SumNet')
    # the buffers are those before the forward pass
    assert different(earlier.model.state_dict(), event['weights']) == []
    batch = from_plain(event['batch'])
    assert batch['data_samples'][1].img_path == 'images/9.png'
    assert batch['data_samples'][1].gt_label.tolist() == [1]


@pytest.mark.parametrize('bad', ['image', 'gradient'])
@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
@pytest.mark.parametrize('ahead', [False, True])
def test_a_skipped_update_changes_nothing(tmp_path, monkeypatch, bad, clip, ahead):
    # on a GPU the kernels of the step decide; those of the CPU take the same argument
    monkeypatch.setattr(guarded_steps, '_runs_ahead', lambda part: ahead)
    states = States()
    hooks = [states, *([BadGradient([3])] if bad == 'gradient' else [])]
    runner = build(tmp_path, SKIP, bad=9 if bad == 'image' else None, hooks=hooks, wrapper=dict(clip_grad=clip))
    runner.train()
    assert different(states.states[3], states.states[4]) == ['backbone.1.num_batches_tracked']
    assert different(states.states[4], states.states[5])
    assert all(value.isfinite().all() for value in state_of(runner).values())
    saved = torch.load(tmp_path / 'iter_6.pth', weights_only=False)['training_guard']
    assert (saved['skips'], saved['skips_in_a_row'], saved['saved']) == (1, 0, 1)
    event = read_event(tmp_path / 'failed_batches/iter_3_rank_0.pth')
    assert event['gradients'] == (
        [name for name, _ in runner.model.named_parameters()] if bad == 'image' else ['head.weight']
    )


def test_skips_in_a_row_are_limited_and_few_keep_weights(tmp_path):
    runner = build(tmp_path, dict(SKIP, max_skips=3, max_saved=2), hooks=[BadGradient(range(2, 9))], max_iters=9)
    with pytest.raises(
        TrainingCollapsedError, match=r'iteration 5 .*head.weight.*the 3 iterations before were skipped'
    ):
        runner.train()
    paths = sorted((tmp_path / 'failed_batches').iterdir())
    assert [path.name for path in paths] == [f'iter_{number}_rank_0.pth' for number in (2, 3, 4, 5)]
    assert [read_event(path)['weights'] is None for path in paths] == [False, False, True, True]


def test_gradients_of_an_accumulated_step_are_dropped(tmp_path):
    states = States()
    runner = build(tmp_path, SKIP, bad=9, hooks=[states], wrapper=dict(accumulative_counts=2), max_iters=8)
    runner.train()
    # iterations 3 and 7 are bad; the update of 4 has the gradients of its own pass only
    assert not [name for name in different(states.states[3], states.states[4]) if 'num_batches' not in name]
    assert 'head.weight' in different(states.states[4], states.states[5])
    assert all(value.isfinite().all() for value in state_of(runner).values())


def test_a_loss_without_bad_gradients_is_skipped_too(tmp_path):
    class Broken(States):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            super().before_train_iter(runner, batch_idx, data_batch)
            parse = type(runner.model).parse_losses
            constant = math.inf if runner.iter == 2 else 0.0

            def parsed(losses):
                loss, logged = parse(runner.model, losses)
                return loss + constant, dict(logged, loss=loss + constant)

            runner.model.parse_losses = parsed

    states = Broken()
    build(tmp_path, SKIP, hooks=[states]).train()
    assert 'head.weight' not in different(states.states[3], states.states[4])


@pytest.mark.parametrize('part', ['tokenizer.decoder.conv_out.weight', 'discriminator.0.weight'])
def test_the_optimizers_of_a_gan_skip_together(tmp_path, part):
    model = tiny_vqgan.build(schedule=dict(start=0, alone=0, ramp=1))
    names = dict(model.named_parameters())
    name = part if part in names else next(name for name in names if name.startswith('discriminator'))
    kept = []

    class Keep(States):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            kept.append({name: value.detach().clone() for name, value in runner.model.named_parameters()})

    hooks = [dict(type='addp_mm.TrainingGuardHook', **SKIP), BadGradient([2], name), Keep()]
    tiny_vqgan.build_runner(tmp_path, model, hooks, max_iters=4).train()
    assert different(kept[1], kept[2]) == []
    assert {name.partition('.')[0] for name in different(kept[2], kept[3])} == {'tokenizer', 'discriminator'}


def test_a_loss_scale_that_falls_without_end_stops_and_a_skip_of_the_scaler_does_not(tmp_path):
    wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale=dict(init_scale=8.0))
    guard = dict(loss_scale=dict(max_skips=3))
    fine = build(tmp_path / 'fine', guard, hooks=[BadGradient([2, 3, 5])], wrapper=wrapper)
    fine.train()
    assert fine.optim_wrapper.loss_scaler.get_scale() == 1.0
    with pytest.raises(TrainingCollapsedError, match=r'iteration 4 .*infinite in 3 steps in a row.*scale fell to 1'):
        build(tmp_path / 'row', guard, hooks=[BadGradient(range(2, 7))], wrapper=wrapper).train()
    with pytest.raises(TrainingCollapsedError, match=r'iteration 5 .*loss scale fell to 0.5, below 1'):
        build(tmp_path / 'low', {}, hooks=[BadGradient(range(2, 7))], wrapper=wrapper).train()


@pytest.mark.parametrize(
    'wrapper', [{}, dict(accumulative_counts=2, clip_grad=dict(max_norm=0.5)), dict(optimizer=dict(type='SGD', lr=0.1))]
)
def test_a_good_training_is_not_changed(tmp_path, wrapper):
    runners = [build(tmp_path / name, guard, wrapper=dict(wrapper)) for name, guard in (('off', None), ('on', SKIP))]
    for runner in runners:
        runner.train()
    assert different(*map(state_of, runners)) == []
    assert not (tmp_path / 'on/failed_batches').exists()
    wrappers = [vars(runner.optim_wrapper).keys() for runner in runners]
    assert wrappers[0] == wrappers[1]


@pytest.mark.parametrize('policy', ['skip', 'rollback'])
def test_a_training_resumed_after_a_failure_equals_the_uninterrupted_one(tmp_path, policy):
    guard = SKIP if policy == 'skip' else dict(policy='rollback', lr_factor=0.5)
    options = dict(hooks=[dict(type='BadGradient', iterations=[3])] if policy == 'skip' else [], max_iters=8)
    bad = None if policy == 'skip' else 9
    whole = build(tmp_path / 'whole', guard, bad=bad, **options)
    if policy == 'rollback':
        # the sample is good when it comes again
        class Heal(States):
            def after_load_checkpoint(self, runner, checkpoint):
                runner.train_dataloader.dataset.values.nan_to_num_()

        whole.register_hook(Heal())
    whole.train()
    resumed = build(tmp_path / 'resumed', guard, resume=tmp_path / 'whole/iter_4.pth', **options)
    resumed_rates, whole_rate = States(), whole.optim_wrapper.get_lr()['lr']
    resumed.register_hook(resumed_rates)
    resumed.train()
    assert resumed.optim_wrapper.get_lr()['lr'] == whole_rate
    saved = [torch.load(tmp_path / name / 'iter_8.pth', weights_only=False) for name in ('whole', 'resumed')]
    assert saved[0]['training_guard'] == saved[1]['training_guard']
    if policy == 'skip':
        assert different(saved[0]['state_dict'], saved[1]['state_dict']) == []
        assert saved[1]['training_guard']['skips'] == 1
    else:
        assert saved[1]['training_guard']['lr_scale'] == 0.5


def test_rollbacks_lower_the_rates_of_all_later_steps(tmp_path):
    class Once(BadGradient):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            super().after_train_iter(runner, batch_idx)
            self.iterations.discard(runner.iter + 1)

    plain, states = States(), States()
    build(tmp_path / 'plain', {}, hooks=[plain], max_iters=10).train()
    bad = Once([4, 5, 9])
    bad.priority = 'HIGHEST'
    guard = dict(policy='rollback', lr_factor=0.5)
    runner = build(tmp_path / 'run', guard, hooks=[states, bad], max_iters=10)
    runner.train()
    before = {number: rates[0] for number, rates in plain.rates.items()}
    # iteration 4 goes back to 2; 5 goes back to 4, which was saved after that; 9 goes back to 8
    expected = {3: [1, 0.5], 4: [1, 0.5], 5: [0.5, 0.25], 6: [0.25], 9: [0.25, 0.125], 10: [0.125]}
    for number, factors in expected.items():
        assert states.rates[number] == pytest.approx([factor * before[number] for factor in factors]), number
    assert torch.load(tmp_path / 'run/iter_10.pth', weights_only=False)['training_guard']['lr_scale'] == 0.125


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(policy='ignore'), 'policy must be one of stop, skip, rollback'),
        (dict(policy='skip'), 'loss and gradients only, got it for weights'),
        (dict(policy=dict(losses='stop')), 'no kind losses; choose from loss'),
        (dict(lr_factor=0.0), 'lr_factor'),
        (dict(max_rollbacks=-1), 'max_rollbacks'),
        (dict(collapse=dict(window=0)), 'window'),
        (dict(constant=dict(after=2)), 'after'),
        (dict(codes=dict(min_share=1)), 'min_share'),
        (dict(loss_scale=dict(max_skips=0)), 'max_skips'),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        TrainingGuardHook(**options)
