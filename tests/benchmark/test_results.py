# Copyright (c) addp_mm contributors. Apache-2.0.
"""Statistics of the results, and the tables and the page that show them."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.html_page import ParsedPage

from addp_mm.benchmark.contestants import Contestant
from addp_mm.benchmark.page import build_page
from addp_mm.benchmark.results import Row, Score, Speed
from addp_mm.benchmark.tables import About, as_csv, as_json, as_markdown, score_text, table

OPTIONS = dict(repeats=3, steps=10, device='cpu')
ABOUT = About('addp benchmark --train', '2 CPU cores', {'torch': '2.6'}, OPTIONS, 'today')


def row(name, **fields):
    return Row(Contestant('fashion_scenes', 'det', name, f'The {name}', Path(f'{name}.py')), 2, (64, 64), **fields)


def measured(name, seconds, scores):
    peaks = [2**29, 2**30]
    speed = {mode: Speed.of(seconds, peaks, 2) for mode in ('inference', 'training')}
    parameters = dict(backbone=1_200_000, model=3_400_000)
    results = {'Box AP': Score(scores), 'Mask AP': Score({seed: value / 2 for seed, value in scores.items()})}
    return row(name, precision='float32', parameters=parameters, macs=parameters, speed=speed, scores=results)


@pytest.fixture
def results():
    return [
        measured('fast', [0.1, 0.2, 0.3, 0.4, 0.9], {0: 20.0, 1: 22.0}),
        measured('slow', [1.0, 2.0, 3.0], {0: 30.0, 1: 31.0}),
        row('broken|', failures=['ValueError: no']),
    ]


def test_speed_is_the_median_with_quartiles_of_the_time():
    seconds = np.random.default_rng(0).uniform(0.1, 1, 31)
    speed = Speed.of(list(seconds), [5, None, 2**31], 8)
    high, median, low = 8 / np.quantile(seconds, [0.25, 0.5, 0.75])
    assert (speed.low, speed.median, speed.high) == pytest.approx((low, median, high))
    assert (speed.steps, speed.peak_gib) == (31, 2.0)
    one = Speed.of([0.5], [None], 8)
    assert (one.low, one.median, one.high, one.peak_gib) == (16, 16, 16, None)


def test_scores_have_the_sample_standard_deviation():
    assert score_text(Score({0: 1.0, 1: 2.0, 2: 3.0})) == '2.0 ± 1.0'
    assert score_text(Score({0: 1.25})) == '1.2'
    assert score_text(None) == '–'


def test_tables_and_json_have_the_same_numbers(results):
    found = json.loads(json.dumps(as_json(results, ABOUT)))
    assert found['machine'] == '2 CPU cores'
    markdown = as_markdown(results, ABOUT)
    assert r'| The broken\| | – (–) | – (–) | – | – | – | – | – | – |' in markdown
    assert r'- The broken\|, Detection on FashionScenes: ValueError: no' in markdown
    for one in found['rows'][:2]:
        speed, box = one['images_per_second']['inference'], one['metrics']['Box AP']
        assert f'| The {one["backbone"]} | 3.4 (1.2) | 0.0034 (0.0012) |' in markdown
        assert f'| {speed["median"]:.3g} ({speed["low"]:.3g} to {speed["high"]:.3g}) |' in markdown
        assert f'| {box["mean"]:.1f} ± {box["standard_deviation"]:.1f} |' in markdown
        assert '| 1.00 | 1.00 |' in markdown
    header, *lines = as_csv(results).splitlines()
    assert len(lines) == 3
    assert 'metrics.Box AP.by_seed.1' in header.split(',')


def test_columns_without_numbers_are_left_out():
    header, cells = table([row('one', parameters=dict(model=1_000_000))])
    assert header == ['backbone', 'parameters, M (backbone)']
    assert cells == [['The one', '1 (–)']]


def test_the_page_has_a_chart_for_each_metric_and_names_failures(results):
    parsed = ParsedPage(build_page(results, ABOUT).html())
    assert parsed.external() == []
    assert [image['alt'] for image in parsed.attributes('img')] == [
        'Box AP, % against inference, images/s: Box AP and speed',
        'Box AP, % against parameters of the backbone, M: Box AP and size',
        'Mask AP, % against inference, images/s: Mask AP and speed',
        'Mask AP, % against parameters of the backbone, M: Mask AP and size',
        'images/s: Speed',
    ]
    assert '1 measurement(s) failed' in parsed.text
    assert 'ValueError: no' in parsed.text
