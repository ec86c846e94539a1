# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of the transfer benchmark: spread over the seeds, verdict, commands."""

from dataclasses import replace

import fashion_scenes_transfer as transfer
import pytest
from demo_report.finetunings import finetunings
from helpers.demo_files import write_data, write_run

from addp_mm.benchmark.step_runner import Done


def test_spread_is_the_sample_standard_deviation():
    assert transfer.mean_and_spread([1.0, 2.0, 3.0]) == '2.0 ± 1.0'
    assert transfer.mean_and_spread([1.25]) == '1.2'


def test_the_verdict_names_metrics_that_are_not_better():
    results = {
        'Accuracy': dict(addp=[60, 61, 62], random=[50, 51, 59]),
        'mIoU': dict(addp=[40, 45, 50], random=[39, 41, 42]),
        'Box AP': dict(addp=[20, 21, 22], random=[20, 23, 24]),
    }
    text = transfer.verdict(results)
    assert 'The worst seed of ADDP weights is above the best seed of random weights in Accuracy.' in text
    assert 'the seeds overlap, in mIoU.' in text
    assert '**ADDP weights are not above random weights in Box AP.**' in text


def test_the_output_path_is_checked_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tool goes to another folder
    monkeypatch.setattr(transfer, 'StepRunner', lambda *args, **options: pytest.fail('work began'))
    with pytest.raises(SystemExit, match='error: --out .* is a folder'):
        transfer.main(['--out', str(tmp_path)])


def test_the_page_has_seeds_data_and_commands(tmp_path, monkeypatch):
    write_data(tmp_path / 'data')
    monkeypatch.setattr(transfer, 'file_fingerprint', lambda path: 'abc123')
    runs = [replace(run, data_root=tmp_path / 'data') for run in finetunings(tmp_path / 'bench', [0, 1])]
    for run in runs:
        write_run(run, tmp_path)
    steps = [step for run in runs for step in run.steps()]
    args = transfer.parse_args(['--seeds', '0', '1'])
    text = transfer.document(runs, steps, {step.name: Done(30.0, 1.0, False) for step in steps}, args)
    assert '| Classification, ViT classifier | Accuracy | 63.2 ± 0.0 | 53.2 ± 0.0 | +10.0 |' in text
    assert '| mIoU | random weights | 41.5 | 41.5 |' in text
    assert '| Detection | 20,000 | 16 |' in text
    assert 'abc123' in text
    assert 'torch' in text
    for step in steps:
        assert step.shown in text
