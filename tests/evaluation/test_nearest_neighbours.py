# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import numpy as np
import pytest
import torch
from helpers import two_ranks_knn
from helpers.jobs import in_two, records
from helpers.tiny_knn import CLASSES, build_runner, samples

from addp_mm.engine.loops.nearest_neighbour_loop import gather_rows
from addp_mm.evaluation.nearest_neighbours import NeighbourAccuracy, NeighbourBank, nearest


def votes_by_hand(queries, bank, labels, k, temperature=0.07, classes=CLASSES) -> np.ndarray:
    """One query and one neighbour after the other, in double precision."""
    unit = lambda row: row / math.sqrt(sum(x * x for x in row))  # noqa: E731
    bank = [unit(np.asarray(row, dtype=np.float64)) for row in bank]
    votes = np.zeros((len(queries), classes))
    for i, query in enumerate(queries):
        query = unit(np.asarray(query, dtype=np.float64))
        ranked = sorted(
            ((float(query @ row), int(label)) for row, label in zip(bank, labels, strict=True)), reverse=True
        )
        for cosine, label in ranked[:k]:
            votes[i, label] += math.exp(cosine / temperature)
    return votes


def accuracy_by_hand(votes, labels, top) -> float:
    hits = [
        int(label) in sorted(np.flatnonzero(row), key=lambda c: -row[c])[:top]
        for row, label in zip(votes, labels, strict=True)
    ]
    return 100 * sum(hits) / len(hits)


def expected_metrics() -> dict[str, float]:
    queries, truth = samples(31, 1)
    bank, labels = samples(53, 2)
    return {
        f'knn/k{k}_top{top}': accuracy_by_hand(
            votes_by_hand(queries.mean((2, 3)), bank.mean((2, 3)), labels, k), truth, top
        )
        for k in (3, 7)
        for top in (1, 3)
    }


@pytest.mark.parametrize('k', [1, 5, 20])
def test_votes_are_those_of_a_brute_force_search(k):
    generator = torch.Generator().manual_seed(3)
    queries, bank = torch.randn(6, 8, generator=generator), 5 * torch.randn(20, 8, generator=generator)
    labels = torch.randint(CLASSES, (20,), generator=generator)
    votes = NeighbourBank(bank, labels, CLASSES).votes(queries, [k])[k]
    by_hand = votes_by_hand(queries.numpy(), bank.numpy(), labels, k)
    np.testing.assert_allclose(votes, by_hand / by_hand.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_neighbours_come_in_order_and_fewer_ones_are_the_first_of_many():
    bank = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    products, rows = nearest(bank[:3], bank, 30)
    assert (products.diff(dim=1) <= 0).all()
    assert rows.sort(1).values.tolist() == [list(range(30))] * 3
    assert torch.equal(nearest(bank[:3], bank, 5)[1], rows[:, :5])
    with pytest.raises(ValueError, match=r'must be in \[1, 30\], the size of the bank; got 31'):
        nearest(bank[:3], bank, 31)


def test_the_temperature_decides_between_near_and_many():
    bank = NeighbourBank(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]]), torch.tensor([0, 1, 1]), temperature=0.07)
    query = torch.tensor([[10.0, 0.0]])
    assert bank.num_classes == 2
    assert bank.votes(query, [3])[3].argmax() == 0
    bank.temperature = 10.0
    assert bank.votes(query, [3])[3].argmax() == 1


def test_accuracy_is_the_share_of_correct_samples():
    metric = NeighbourAccuracy(topk=(1, 2))
    votes = torch.tensor([0.5, 0.3, 0.2])
    metric.process({}, [dict(gt_label=torch.tensor([label]), neighbour_votes={4: votes}) for label in (0, 1, 1, 2)])
    assert metric.evaluate(4) == {'knn/k4_top1': 25.0, 'knn/k4_top2': 75.0}


def test_classes_without_a_vote_are_never_correct():
    metric = NeighbourAccuracy(topk=(3,))
    metric.process(
        {},
        [
            dict(gt_label=torch.tensor([label]), neighbour_votes={1: torch.tensor([0.0, 1.0, 0.0])})
            for label in range(3)
        ],
    )
    assert metric.evaluate(3) == {'knn/k1_top3': pytest.approx(100 / 3)}


def test_runner_tests_a_model(tmp_path):
    runner = build_runner(tmp_path)
    metrics = runner.test()
    assert metrics == pytest.approx(expected_metrics())
    assert 30 < metrics['knn/k7_top1'] < metrics['knn/k7_top3'] < 100
    assert len(runner.test_loop.bank) == 53


def test_features_that_are_not_vectors_and_wrong_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'one vector per image; extract_feat gives \(8, 3, 2, 2\)'):
        build_runner(tmp_path, model=dict(flat=False)).test()
    with pytest.raises(ValueError, match=r'at least 1, got \(0,\)'):
        build_runner(tmp_path, num_neighbours=(0,)).test()
    assert torch.equal(gather_rows(torch.arange(3), 3), torch.arange(3))


def test_two_processes_measure_the_same_as_one(tmp_path):
    """53 labelled and 31 test images on two processes: neither is counted twice."""
    in_two(tmp_path, 'ranks', two_ranks_knn.job)
    zero, one = (records(tmp_path)[f'ranks_{rank}'] for rank in range(2))
    bank, labels = samples(53, 2)
    assert zero['labels'] == one['labels'] == labels.tolist()
    unit = torch.nn.functional.normalize(bank.mean((2, 3)), dim=1)
    for found in (zero, one):
        torch.testing.assert_close(torch.tensor(found['features']), unit)
        assert found['metrics'] == pytest.approx(expected_metrics())


def test_a_model_without_weights_and_a_missing_bank_are_refused():
    from mmengine.config import Config

    from addp_mm.checks.datasets import check_datasets
    from addp_mm.checks.weights import require_weights
    from addp_mm.config.config_file import ConfigError

    cfg = Config(dict(model=dict(backbone=dict(init_cfg=[dict(type='addp_mm.Pretrained', checkpoint='a.pth')]))))
    require_weights(cfg)
    with pytest.raises(ConfigError, match='no weights: give a checkpoint after the config, or'):
        require_weights(Config(dict(model=dict(backbone=dict(init_cfg=dict(type='Normal'))))))
    with pytest.raises(ConfigError, match='trained first: give its checkpoint'):
        require_weights(Config(dict(model=cfg.model, train_cfg=dict(max_epochs=1))))
    check_datasets(cfg, 'test_cfg.bank_dataloader')
    cfg.test_cfg = dict(bank_dataloader=dict(dataset=dict(type='CustomDataset', data_root='nowhere', data_prefix='x')))
    with pytest.raises(ValueError, match='nowhere'):
        check_datasets(cfg, 'test_cfg.bank_dataloader')
