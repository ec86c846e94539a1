# Copyright (c) addp_mm contributors. Apache-2.0.
"""The benchmark of COCO metrics. Nothing is timed in the tests."""

import pytest
from coco_metric import main, row

pytest.importorskip('faster_coco_eval')


def test_both_metrics_give_the_same_values(capsys):
    main(['--num-images', '2', '--detections', '9', '--rounds', '1'])
    printed = capsys.readouterr().out
    assert '2 images, 14 objects, 18 predictions' in printed
    assert [line.split('|')[1].strip() for line in printed.splitlines() if line.startswith('|')][2:] == ['bbox', 'segm']


def test_different_values_are_an_error(monkeypatch):
    from addp_mm.evaluation.fast_coco import FastCocoMetric

    monkeypatch.setattr(FastCocoMetric, 'evaluate', lambda *_: dict(mAP=0.0))
    with pytest.raises(SystemExit, match='the values of bbox differ'):
        main(['--num-images', '2', '--detections', '9', '--rounds', '1'])


def test_a_row_has_medians_and_the_range_of_the_ratio():
    assert row('bbox', [(2.0, 1.0), (6.0, 2.0), (8.0, 2.0)]) == '| bbox | 6.00 | 2.00 | 3.0 (2.0 to 4.0) |'
