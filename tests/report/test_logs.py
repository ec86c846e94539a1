# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the demo reads from logs, and what it says where they are missing or broken."""

import re

import pytest
from helpers.demo_files import png, train_records, write_scalars

from addp_mm.report.logs import LogError, read_curve, read_metrics, read_pictures


def test_curve_of_a_resumed_run_goes_on_where_it_was_left(tmp_path):
    write_scalars(tmp_path, '20260101_000000', train_records((10, 20, 30)))
    write_scalars(tmp_path, '20260101_000100', [*train_records((20,), scale=2.0), {'accuracy/top1': 5.0, 'step': 20}])
    assert read_curve(tmp_path) == [(10, 0.1), (20, 0.1)]
    with pytest.raises(LogError, match=r"do not tell 'los'; they tell .*loss"):
        read_curve(tmp_path, 'los')


def test_curve_without_a_log_says_where_and_a_cut_line_is_passed_over(tmp_path):
    with pytest.raises(LogError, match=re.escape(f'{tmp_path} holds no')):
        read_curve(tmp_path)
    file = write_scalars(tmp_path, '20260101_000000', train_records((10,)))
    file.write_text(file.read_text() + '{"loss": 0.\n')
    assert read_curve(tmp_path) == [(10, 0.1)]


def test_metrics_that_are_missing_or_broken_say_where(tmp_path):
    with pytest.raises(LogError, match='metrics.json is missing'):
        read_metrics(tmp_path / 'metrics.json')
    (tmp_path / 'metrics.json').write_text('{')
    with pytest.raises(LogError, match='metrics.json is not JSON'):
        read_metrics(tmp_path / 'metrics.json')


def test_pictures_are_in_the_order_of_iterations(tmp_path):
    for step in (1000, 200):
        png(tmp_path / f'20260101_000000/vis_data/vis_image/generated_{step}.png', (8, 8))
    assert [step for step, _ in read_pictures(tmp_path, 'generated')] == [200, 1000]
    with pytest.raises(LogError, match='reconstructions'):
        read_pictures(tmp_path, 'reconstructions')
