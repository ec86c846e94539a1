# Copyright (c) addp_mm contributors. Apache-2.0.
"""Logs and results, and the errors if they are missing or damaged."""

import re

import pytest
from helpers.demo_files import png, train_records, write_scalars

from addp_mm.report.logs import LogError, read_curve, read_json, read_previews


def test_curve_of_a_resumed_run_is_continuous(tmp_path):
    write_scalars(tmp_path, '20260101_000000', train_records((10, 20, 30)))
    write_scalars(tmp_path, '20260101_000100', [*train_records((20,), scale=2.0), {'accuracy/top1': 5.0, 'step': 20}])
    assert read_curve(tmp_path) == [(10, 0.1), (20, 0.1)]
    assert read_curve(tmp_path, 'accuracy/top1') == [(20, 5.0)]
    with pytest.raises(LogError, match=r"have no 'los'; they have .*loss"):
        read_curve(tmp_path, 'los')


def test_a_missing_log_is_named_and_an_incomplete_line_is_skipped(tmp_path):
    with pytest.raises(LogError, match=re.escape(f'{tmp_path} has no')):
        read_curve(tmp_path)
    file = write_scalars(tmp_path, '20260101_000000', train_records((10,)))
    file.write_text(file.read_text() + '{"loss": 0.\n')
    assert read_curve(tmp_path) == [(10, 0.1)]


def test_a_missing_or_damaged_result_is_named(tmp_path):
    with pytest.raises(LogError, match='metrics.json is missing'):
        read_json(tmp_path / 'metrics.json')
    (tmp_path / 'metrics.json').write_text('{')
    with pytest.raises(LogError, match='metrics.json is not JSON'):
        read_json(tmp_path / 'metrics.json')


def test_previews_are_in_the_order_of_iterations(tmp_path):
    for step in (1000, 200):
        png(tmp_path / f'20260101_000000/vis_data/vis_image/generated_{step}.png', (8, 8))
    assert [step for step, _ in read_previews(tmp_path, 'generated')] == [200, 1000]
    with pytest.raises(LogError, match='reconstructions'):
        read_previews(tmp_path, 'reconstructions')
