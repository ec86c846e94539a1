# Copyright (c) addp_mm contributors. Apache-2.0.
"""The example that tunes a small language model by cDPO on sums of digits."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from agreement import (
    ExaminedAnswer,
    difference,
    half_correlation,
    rank_correlation,
    share_found,
    spearman,
    with_interval,
)
from answers import answer_log_probs, continue_answers, noise_for
from causal_transformer import CausalTransformer
from methods import METHODS, shuffled_scores
from rollouts import shares_right
from settings import Settings
from sum_task import END, PADDING, SYMBOLS, SumTask
from torch import nn
from tuning import Budget, Pairs, tuned_on_pairs, tuned_on_samples

RUN = Path(__file__).parents[2] / 'examples/arithmetic/run.py'
TASK = SumTask(3)
TINY = Settings(
    num_terms=2,
    embed_dims=16,
    depth=1,
    base_steps=40,
    base_batch_size=16,
    questions=60,
    samples=8,
    light_steps=2,
    light_batch_size=8,
    steps=2,
    batch_size=4,
    lrs=(1e-4, 1e-3),
    validation_questions=10,
    test_questions=10,
    rollout_answers=3,
    rollouts=2,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location('arithmetic_run', RUN)  # other folders have a run.py too
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = CausalTransformer(PADDING, TASK.length, embed_dims=16, depth=2)
    for parameter in model.parameters():  # larger weights, so that tokens differ
        nn.init.normal_(parameter, std=0.5) if parameter.dim() > 1 else None
    return model


class Scripted(nn.Module):
    """Answers right, and chooses digits at random; after a wrong sum it adds up what is there."""

    blocks = ()

    def __init__(self, task):
        super().__init__()
        self.task = task

    def step(self, ids, cache):
        history = ids if not cache else torch.cat([cache[0][0], ids], 1)
        rows = [self.probabilities(self.task.text(row)) for row in history]
        return torch.stack(rows).log()[:, None], [(history, history)]

    def probabilities(self, text):
        question, _, answer = text.partition('=')
        result = torch.zeros(PADDING)
        left = question.split('+')
        steps = answer.split('=')
        for used in ''.join(step[-1:] if '+' in step else '' for step in steps) + answer[:1]:
            if used in left:
                left.remove(used)
        if not answer or answer[-1] == '+':
            following = left
        elif '+' not in steps[-1] and len(steps) > 1:
            total = str(int(steps[-2].split('+')[0]) + int(steps[-2].split('+')[1]))
            unfinished = total.startswith(steps[-1]) and len(steps[-1]) < len(total)
            following = total[len(steps[-1])] if unfinished else '+' if left else '$'
        else:
            following = '=' if '+' in steps[-1] else '+'
        for symbol in following:
            result[SYMBOLS.index(symbol)] += 1 / len(following)
        return result


@pytest.mark.parametrize('num_terms', [2, 3, 11])
def test_written_answers_are_right_by_pythons_own_arithmetic(num_terms):
    task = SumTask(num_terms)
    terms = task.questions(50, seeded())
    ids = task.written(terms, seeded(1))
    assert ids.shape == (50, task.length)
    assert task.is_right(ids, terms).all()
    orders = set()
    for row, digits in zip(ids, terms.tolist(), strict=True):
        question, steps = task.text(row).removesuffix('$').split('=', 1)
        assert question == '+'.join(map(str, digits))
        assert sorted(digits) == [1, *sorted(digits)][1:]
        sides = steps.split('=')
        totals = [int(side.split('+')[0]) for side in sides]
        taken = [totals[0], *(int(side.split('+')[1]) for side in sides[:-1])]
        assert sorted(taken) == sorted(digits)
        assert totals == [sum(taken[: count + 1]) for count in range(num_terms)]
        orders.add(tuple(taken) == tuple(digits))
    assert orders == {True, False} or num_terms == 11  # the order is random


@pytest.mark.parametrize(
    'answer, right',
    [
        ('5+9=14+2=16$', True),
        ('2+9=11+5=16$', True),
        ('5+9=13+2=16$', True),  # only the last sum counts
        ('5+9=14+2=17$', False),
        ('5+9=14+2=16', False),  # no end
        ('5+9=1+2=116$', False),
        ('16$', False),
        ('$', False),
        ('', False),
    ],
)
def test_the_last_sum_decides(answer, right):
    ids = TASK.encode(['2+5+9=' + answer])
    assert TASK.is_right(ids, torch.tensor([[2, 5, 9]])).tolist() == [right]
    assert TASK.answer_mask(ids).sum() == len(answer)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match='from 2 to 11, got 12'):
        SumTask(12)


def test_sampling_keeps_prefixes_and_pads_after_the_end(model):
    prompts = TASK.prompts(TASK.questions(40, seeded()))
    ids = continue_answers(model, TASK, prompts, noise_for(TASK, 120, seeded(1)), repeats=3)
    assert ids[:, : prompts.shape[1]].equal(prompts.repeat_interleave(3, 0))
    ended = 0
    for row in ids[:, prompts.shape[1] :].tolist():
        length = row.index(END) + 1 if END in row else len(row)
        ended += length < len(row)
        assert PADDING not in row[:length]
        assert set(row[length:]) <= {PADDING}
    assert ended > 10


def test_sampling_with_the_cache_follows_the_model_without_it(model):
    prompts = TASK.prompts(TASK.questions(5, seeded()))
    ids = continue_answers(model, TASK, prompts, None)
    mask = TASK.answer_mask(ids)
    best = model(ids[:, :-1])[:, TASK.question_length - 1 :].argmax(-1)
    assert best[mask].equal(ids[:, TASK.question_length :][mask])
    noise = noise_for(TASK, 4000, seeded(2))
    drawn = continue_answers(model, TASK, prompts[:1], noise, repeats=4000)[:, TASK.question_length]
    wanted = model(prompts[:1])[0, -1].softmax(0)
    assert torch.bincount(drawn, minlength=PADDING) / 4000 == pytest.approx(wanted.detach(), abs=0.04)


def test_a_longer_prefix_with_the_same_noise_continues_in_the_same_way(model):
    prompts, noise = TASK.prompts(TASK.questions(30, seeded())), noise_for(TASK, 30, seeded(1))
    ids = continue_answers(model, TASK, prompts, noise)
    going = (ids[:, -3:] == PADDING).all(1).logical_not()
    longer = ids[going, : TASK.question_length + 1]
    assert continue_answers(model, TASK, longer, noise[going]).equal(ids[going])


def test_noise_at_its_limits_gives_a_token(model):
    prompts = TASK.prompts(TASK.questions(2, seeded()))
    for value in (0.0, 1 - 2**-24):
        assert continue_answers(model, TASK, prompts, torch.full((2, TASK.length), value)).max() <= PADDING


def test_log_probs_equal_a_direct_computation(model):
    ids = TASK.encode(['2+5+9=5+9=14+2=16$', '1+1+1=1+1=2+1=3$'])
    found = answer_log_probs(model, TASK, ids)
    assert found.shape == (2, TASK.answer_length)
    for row, own in zip(ids, found, strict=True):
        text = row[row != PADDING]
        for place in range(TASK.question_length, len(text)):
            wanted = model(text[None, :place])[0, -1].log_softmax(0)[text[place]]
            assert own[place - TASK.question_length].item() == pytest.approx(wanted.item(), abs=1e-5)
        assert (own[len(text) - TASK.question_length :] == 0).all()


def test_rollouts_find_the_only_wrong_token():
    terms = torch.tensor([[2, 5, 9], [4, 3, 8]])
    ids = TASK.encode(['2+5+9=5+9=24+2=26$', '4+3+8=3+8=11+4=15$'])
    shares = shares_right(Scripted(TASK), TASK, ids, terms, 8, seeded())
    assert shares.shape == (2, TASK.answer_length + 1, 8)
    wrong = 'x5+9=2'.index('2')  # after this token no continuation is right
    assert (shares[0, :wrong] == 1).all()
    assert (shares[0, wrong:] == 0).all()
    assert (shares[1] == 1).all()


def examined(shares, suspicion):
    return ExaminedAnswer('', 'x' * len(suspicion), shares, (shares, shares[:1] * len(shares)), dict(score=suspicion))


@pytest.mark.parametrize(
    'shares, critical, hopeless',
    [
        ([0.5, 0.6, 0.01, 0.0], 1, 1),
        ([0.6, 0.1, 0.1, 0.0], 0, 2),
        ([0.5, 0.4, 0.1, 0.1], 1, 1),  # some continuations stay right
        ([0.0, 0.0, 0.5, 0.0], 2, 2),  # a share of 0 cannot fall
    ],
)
def test_the_critical_token_and_the_one_that_ends_all_hope(shares, critical, hopeless):
    answer = examined(shares, [0, 0, 0])
    assert (answer.critical, answer.hopeless) == (critical, hopeless)


def test_agreement_with_rollouts():
    good = examined([1.0, 0.9, 0.0, 0.0], [0.5, 0.9, 0.1])
    bad = examined([1.0, 0.9, 0.0, 0.0], [0.5, 0.1, 0.9])
    assert rank_correlation('score')([good]) == pytest.approx(1)
    assert rank_correlation('score')([bad]) == pytest.approx(-1)
    rising = examined([0.1, 0.4, 0.4, 0.0], [0.9, 0.1, 0.9])
    assert rank_correlation('score')([rising]) == pytest.approx(0)
    assert rank_correlation('score', falls_only=True)([rising]) == pytest.approx(0.5)
    assert share_found('score')([good, bad, bad, bad]) == 0.25
    assert share_found('score', 1.0)([bad]) == 1
    late = examined([0.6, 0.1, 0.1, 0.0], [0.1, 0.2, 0.9])
    assert (share_found('score')([late]), share_found('score', hopeless=True)([late])) == (0, 1)
    assert torch.tensor(half_correlation()([good])).isnan()  # one half has no drop
    assert spearman(torch.tensor([1, 2, 2, 5]).numpy(), torch.tensor([10, 20, 20, 21]).numpy()) == pytest.approx(1)
    found = with_interval(share_found('score'), [good, bad] * 20)
    assert found['value'] == 0.5
    assert 0.3 < found['low'] < 0.45 < 0.55 < found['high'] < 0.7


def test_a_difference_has_the_interval_of_pairs():
    shares = [1.0, 0.9, 0.0, 0.0]
    found = {True: [0.5, 0.9, 0.1], False: [0.5, 0.1, 0.9]}
    # the first one finds each token that the second one finds, and a quarter more
    answers = [
        ExaminedAnswer('', 'xxx', shares, (shares, shares), dict(one=found[one], other=found[other]))
        for one, other in [(True, True), (True, True), (True, False), (False, False)] * 10
    ]
    paired = with_interval(difference(share_found('one'), share_found('other')), answers)
    assert paired['value'] == 0.25
    assert 0.1 < paired['low'] < 0.17 < 0.33 < paired['high'] < 0.4  # 0.25 ± 1.96 · 0.0685
    swapped = with_interval(difference(share_found('other'), share_found('one')), answers)
    assert (swapped['value'], swapped['low']) == (-0.25, -paired['high'])
    assert with_interval(difference(share_found('one'), share_found('one')), answers)['high'] == 0


def test_training_changes_a_copy_and_prefers_the_chosen_side(model):
    terms = TASK.questions(8, seeded())
    chosen = TASK.written(terms, seeded(1))
    rejected = TASK.written(terms.flip(0), seeded(2))
    rejected[:, : TASK.question_length] = chosen[:, : TASK.question_length]
    scores = torch.full((8, TASK.answer_length), 0.5)
    pairs, before = Pairs(chosen, rejected, scores, scores), answer_log_probs(model, TASK, chosen)
    for name, method in METHODS.items():
        weighted = 'rejected' if method.weighted_by else 'none'
        if method.loss is not None:
            tuned, rewards = tuned_on_pairs(
                model, TASK, pairs, method.loss, weighted, Budget(15, 4, 1e-3), seeded(), name
            )
            assert rewards['reward_margin'] > 0, name
        else:
            tuned = tuned_on_samples(model, TASK, chosen, Budget(15, 4, 1e-3), seeded(), name)
            assert answer_log_probs(tuned, TASK, chosen).sum() > before.sum()
        assert answer_log_probs(model, TASK, chosen).equal(before), name


def test_shuffled_scores_stay_within_their_answer():
    ids = TASK.encode(['2+5+9=5+9=14+2=16$', '1+1+1=1+1=2+1=3$'])
    mask = TASK.answer_mask(ids)
    scores = torch.rand(mask.shape, generator=seeded()).masked_fill(~mask, 0)
    found = shuffled_scores(Pairs(ids, ids, scores, scores), TASK, seeded(1)).rejected_scores
    assert not found.equal(scores)
    assert (found[~mask] == 0).all()
    for own, other, inside in zip(found, scores, mask, strict=True):
        assert own[inside].sort().values.equal(other[inside].sort().values)


def test_a_tiny_run_writes_results_and_figures_and_continues(tmp_path, main, monkeypatch):
    monkeypatch.setattr('agreement._RESAMPLES', 20)
    main(['--seeds', '0', '1', '--out', str(tmp_path)], TINY)
    first, second = ((tmp_path / f'seed_{seed}.json').read_bytes() for seed in range(2))
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['seeds'] == [0, 1]
    assert list(results['accuracy']) == ['base', 'positive', 'negative', *METHODS]
    assert len(json.loads(first)['answers']) == TINY.rollout_answers
    assert '| cDPO, sequence |' in (tmp_path / 'tables.md').read_text()
    assert '| contrast − base |' in (tmp_path / 'tables.md').read_text()
    differences = results['contrast_minus_base']
    for key, own in differences.items():
        values = [results['agreement'][name][key]['value'] for name in ('contrast', 'base')]
        assert own['value'] == pytest.approx(values[0] - values[1], nan_ok=True)
    for name in ('accuracy.svg', 'answers.svg'):
        assert b'</svg>' in (tmp_path / name).read_bytes()
    (tmp_path / 'seed_1.json').unlink()
    main(['--seeds', '0', '1', '--out', str(tmp_path)], TINY)
    assert (tmp_path / 'seed_0.json').read_bytes() == first
    again = json.loads((tmp_path / 'seed_1.json').read_text())
    assert {**again, 'seconds': 0} == {**json.loads(second), 'seconds': 0}  # the same seed, the same numbers


@pytest.mark.parametrize('content, words', [('{', 'cannot be read'), ('{"settings": {}}', 'other settings')])
def test_results_of_something_else_are_refused(tmp_path, main, content, words):
    (tmp_path / 'seed_0.json').write_text(content)
    with pytest.raises(SystemExit, match=words):
        main(['--seeds', '0', '--out', str(tmp_path)], TINY)
