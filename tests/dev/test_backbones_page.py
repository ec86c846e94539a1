# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of nano backbones: what it writes from finished, missing and empty runs."""

import json

import pytest
from backbones_page import DATA, WEIGHTS, main, ranking

from addp_mm.benchmark.results import Score
from addp_mm.config.shipped import config_path

KEYS = dict(cls={'accuracy/top1': 30.0}, det={'coco/bbox_mAP': 0.08, 'coco/segm_mAP': 0.06}, seg={'mIoU': 20.0})


def write_run(folder, task, backbone, seed, values):
    path = folder / f'runs/{DATA}_{task}_{backbone}_seed{seed}/test/metrics.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))


def write_count(folder, task, backbone, macs):
    def cost(name, share, children=()):
        return dict(name=name, trained=2_000_000 * share, frozen=0, flops=2 * macs * share, children=list(children))

    path = folder / f'results/{DATA}_{task}_{backbone}_count.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cost=cost('', 3, [cost('backbone', 1), cost('head', 2)]))))


def written(folder, *arguments):
    page = folder / 'docs/benchmarks/page.md'
    main(['--work-dir', str(folder), '--out', str(page), *arguments])
    return page.read_text()


def lines_of(page, name):
    return [line for line in page.splitlines() if line.startswith(f'| {name} |')]


def test_means_seeds_and_costs_of_finished_runs(tmp_path):
    for seed in range(3):
        for backbone, more in (('addp_nano', 5.0), ('vit_nano', 0.0)):
            for task, values in KEYS.items():
                scaled = {
                    key: value * (1 + seed / 10) + (more if task != 'det' else 0) for key, value in values.items()
                }
                write_run(tmp_path, task, backbone, seed, scaled)
    write_count(tmp_path, 'det', 'addp_nano', 100_000_000)
    (tmp_path / 'stamps').mkdir()
    for step, seconds in (('a_train', 100), ('a_test', 44), ('a_count', 1000)):
        (tmp_path / f'stamps/{step}.json').write_text(json.dumps(dict(seconds=seconds)))
    page = written(tmp_path)
    assert lines_of(page, 'ADDP')[0] == '| ADDP | shipped ADDP | 38.0 ± 3.0 | 8.8 ± 0.8 | 6.6 ± 0.6 | 27.0 ± 2.0 |'
    assert lines_of(page, 'MAE')[0].endswith('| – | – | – | – |')
    assert lines_of(page, 'ADDP')[1] == '| ADDP | 2.00 | 100 | – | 300 | – |'
    assert '| Mask AP | ViT from scratch | 6.0 | 6.6 | 7.2 |' in page
    chart = (tmp_path / 'docs/images/nano_backbones.svg').read_text()
    assert all(name in chart for name in ('ADDP', 'ViT from scratch', 'Mask AP'))
    assert '- mIoU: ADDP > ViT from scratch' in page
    assert '- Box AP: ADDP ~ ViT from scratch' in page
    assert '**27 of 45 runs are not done yet.**' in ' '.join(page.split())
    assert 'The longest training or test took 1:40 minutes, all 2 together' in ' '.join(page.split())


def test_a_detector_that_finds_nothing_has_an_ap_of_0(tmp_path):
    write_run(tmp_path, 'det', 'mae_nano', 4, {})
    page = written(tmp_path, '--seeds', '4')
    assert lines_of(page, 'MAE')[0].endswith('| – | 0.0 | 0.0 | – |')


def test_a_run_without_its_metric_is_an_error(tmp_path):
    write_run(tmp_path, 'cls', 'mae_nano', 0, {'accuracy/top5': 1.0})
    with pytest.raises(KeyError, match='accuracy/top1'):
        written(tmp_path)


def test_backbones_are_joined_if_their_seeds_overlap():
    scores = {'a': Score({0: 1.0, 1: 2.0}), 'b': Score({0: 9.0, 1: 8.0}), 'c': Score({0: 1.9, 1: 0.5})}
    assert ranking(scores) == 'b > a ~ c'
    assert ranking({'a': Score({0: 1.0})}) == 'a'
    assert ranking({'a': Score({0: 1.0}), 'b': Score({0: 9.0})}) == 'b ~ a'


def test_every_backbone_is_listed_with_a_config_of_every_task():
    import yaml

    from addp_mm.benchmark.listing import SHIPPED

    listed = yaml.safe_load(SHIPPED.read_text())[DATA]
    assert set(WEIGHTS) <= set(listed)
    for name in WEIGHTS:
        assert {config_path(listed[name][task]) for task in KEYS}
