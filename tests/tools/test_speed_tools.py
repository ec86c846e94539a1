# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tools that measure speed, on small models: what they count and write. No time is compared."""

import gc
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.published_layout import write_published_layout
from mmengine.config import Config

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis import TrainingStep
from addp_mm.analysis.batches import synthetic_batch, training_size
from addp_mm.benchmark import data_growth
from addp_mm.benchmark.compiled_step import vary
from addp_mm.benchmark.operators import OPERATORS, Inputs, comparison
from addp_mm.benchmark.operators.comparison import (
    COMPILED,
    REFERENCE,
    DifferentResultsError,
    differences,
    operator_groups,
)
from addp_mm.benchmark.paired_times import Case
from addp_mm.benchmark.speed_page import as_json, as_markdown
from addp_mm.benchmark.speed_steps import NAMES, Options, speed_steps
from addp_mm.compat.extension_choice import own_extension
from addp_mm.engine.runner_cfg import set_amp
from addp_mm.errors import ConfigError

ROOT = Path(__file__).parents[2]
PRETRAIN = ROOT / 'configs/pretrain'
ADDP = str(PRETRAIN / 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
FROM_IDS = PRETRAIN / 'token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
TOKENIZER = PRETRAIN / 'vq-tokenizer_nano-p8_2xb8-fp32-12k_fashion-scenes-64px.py'
QUICK = ('--device', 'cpu', '--rounds', '1', '--matrix-side', '8')


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(name: str, out: Path, *arguments) -> list[dict]:
    """The groups that a tool writes."""
    tool(name).main([*map(str, arguments), *QUICK, '--out', str(out)])
    return json.loads(out.read_text())['groups']


def test_a_training_step_by_component_next_to_the_published_code(tmp_path, capsys):
    published = write_published_layout(tmp_path / 'ADDP')
    options = ('--batch-size', '1', '--published', published)
    (group,) = written('pretraining_step', tmp_path / 'out.json', ADDP, *options)
    theirs, ours = group['cases']
    assert theirs['case'].startswith('published addp_vit_base_patch16 (1 x 256 x 256)')
    assert ours['case'].endswith('(1 x 64 x 64)')
    (parts,) = ours['parts']
    names = {'preprocess', 'tokenizer encode', 'predictor', 'expected latents', 'tokenizer decode', 'backbone', 'neck'}
    assert set(parts) == names | {'head and loss', 'backward', 'optimizer', 'other'}
    assert sum(parts.values()) == pytest.approx(ours['seconds'][0], rel=0.2)
    assert ours['flops'] == sum(ours['part_flops'].values())
    assert all(ours['part_flops'][name] > 0 for name in names - {'preprocess'} | {'backward'})
    assert ours['part_flops']['optimizer'] == 0
    assert '| tokenizer decode |' in capsys.readouterr().out
    assert not hasattr(torch.Tensor.backward, '__wrapped__')


def test_a_sampling_run_by_component(tmp_path):
    published = write_published_layout(tmp_path / 'ADDP')
    options = ('--num-images', '1', '--steps', '2', '--published', published)
    (group,) = written('sampling_run', tmp_path / 'out.json', ADDP, *options)
    theirs, ours = group['cases']
    assert theirs['images'] == ours['images'] == 1
    parts = {'predictor', 'expected latents', 'tokenizer decode', 'backbone', 'neck', 'head and loss'}
    assert parts | {'draw ids and masks', 'other'} == set(ours['parts'][0])


@pytest.mark.parametrize('kind', ['global', 'windows', 'rel-pos'])
def test_the_backbones_of_three_libraries_need_as_many_operations(tmp_path, kind):
    groups = written('backbone_time', tmp_path / 'out.json', '--arch', 'tiny', '--img-size', '64', '--kind', kind)
    assert [group['title'].split(', ')[3] for group in groups] == ['inference', 'training']
    inference, training = ({one['case']: one['flops'] for one in group['cases']} for group in groups)
    assert set(inference) == {'timm', 'mmpretrain', 'addp_mm'}
    assert training == {name: 3 * flops for name, flops in inference.items()}
    # operations on relative positions are counted differently: as parts of products, or not at all
    allowed = 0.1 if kind != 'rel-pos' else 1
    assert inference['addp_mm'] == pytest.approx(inference['mmpretrain'], rel=allowed)
    assert inference['addp_mm'] == pytest.approx(inference['timm'], rel=allowed)


def test_the_ways_of_attention_with_relative_positions(tmp_path):
    options = ('--arch', 'small', '--img-size', '64', '--window-size', '2')
    groups = written('relative_positions', tmp_path / 'out.json', *options)
    assert [group['title'].split(', ', 1)[1] for group in groups] == [
        f'{where} tokens, {passes}'
        for where in ('windows of 2 x 2', 'the map of 4 x 4')
        for passes in ('forward', 'forward and backward')
    ]
    assert {len(group['cases']) for group in groups} == {4}


def test_every_operator_agrees_with_its_reference():
    chosen = list(OPERATORS.values())
    groups = list(operator_groups(chosen, lambda: Inputs(torch.device('cpu'), 0.02), [REFERENCE]))
    assert [group.notes['operator'] for group in groups] == [operator.name for operator in chosen]
    for operator, group in zip(chosen, groups, strict=True):
        assert list(group.notes['differences']) == ([operator.reference] if operator.reference else [])


@pytest.mark.parametrize('wrong', [torch.tensor([2, 1]), torch.tensor([1]), torch.tensor([1.0, float('nan')])])
def test_different_results_are_refused(wrong):
    right = torch.tensor([1.0, 2]).to(wrong.dtype)
    same, other = Case('torchvision', lambda: right), Case('torchvision', lambda: [wrong])
    ours = Case('addp_mm', lambda: [right])
    assert differences('nms', ours, [same]) == {'torchvision': 0}
    with pytest.raises(DifferentResultsError, match='^nms: the results of addp_mm and of torchvision differ by '):
        differences('nms', ours, [same, other])


def test_operators_take_turns_with_their_references(tmp_path, capsys):
    chosen = ['nms', 'roi_pool', 'points_in_boxes']
    options = ('--scale', '0.02', '--processor-time', '--op', *chosen)
    groups = written('operators', tmp_path / 'out.json', *options)
    assert [group['notes']['operator'] for group in groups] == chosen
    assert [[case['case'] for case in group['cases']] for group in groups] == [
        ['torchvision', 'addp_mm'],
        ['torchvision', 'addp_mm'],
        ['addp_mm'],
    ]
    table = capsys.readouterr().out.partition('| operator |')[2].splitlines()[2:]
    assert [row.split(' | ')[:3] for row in table] == [
        ['| `nms`', '2000 proposals of an image', 'torchvision'],
        ['| `roi_pool`', '512 boxes on a map of 256 x 200 x 200, forward and backward', 'torchvision'],
        ['| `points_in_boxes`', '20,000 points and 50 boxes', '–'],
    ]


def only_nms(function):
    """An extension with an operator for NMS, and one for RoIPool that has no kernel for the CPU."""

    def no_kernel(*args, **kwargs):
        raise RuntimeError('roi_pool_forward_impl: implementation for device cpu:0 not found.')

    return SimpleNamespace(nms=function, roi_pool_forward=no_kernel)


def test_operators_against_compiled_ones(monkeypatch):
    ours = own_extension()
    chosen = [OPERATORS['nms'], OPERATORS['roi_pool']]

    def groups(compiled):
        monkeypatch.setattr(comparison, 'compiled_extension', lambda: compiled)
        return list(operator_groups(chosen, lambda: Inputs(torch.device('cpu'), 0.02), [COMPILED]))

    nms, roi_pool = groups(only_nms(ours.nms))
    assert [case.name for case in nms.cases] == ['compiled mmcv', 'addp_mm']
    assert [case.name for case in roi_pool.cases] == ['addp_mm']  # mmcv has no kernel
    with pytest.raises(DifferentResultsError, match='compiled mmcv'):
        groups(only_nms(lambda *args, **named: ours.nms(*args, **named)[1:]))
    with pytest.raises(ConfigError, match='^--against compiled: the installed mmcv has no compiled operators'):
        groups(None)


def test_the_data_pipeline_with_made_up_images(tmp_path):
    options = ('--made-up', '6', '--made-up-size', '64', '64', '--batch-size', '2', '--batches', '2')
    (group,) = written('data_pipeline', tmp_path / 'out.json', ADDP, *options, '--num-workers', '0', '1')
    assert [case['case'] for case in group['cases']] == ['0 workers', '1 workers']
    assert all(case['images'] == 4 for case in group['cases'])


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='only Linux limits the cores of a process')
def test_the_data_pipeline_on_some_cores(tmp_path):
    pipeline, cores = tool('data_pipeline'), os.sched_getaffinity(0)
    with pipeline.limited_cores(1):
        assert os.sched_getaffinity(0) == {min(cores)}
    assert os.sched_getaffinity(0) == cores
    options = ('--made-up', '4', '--made-up-size', '64', '64', '--batch-size', '2', '--batches', '1')
    (group,) = written('data_pipeline', tmp_path / 'out.json', ADDP, *options, '--num-workers', '0', '--cores', '1')
    assert [case['case'] for case in group['cases']] == ['0 workers, 1 core']
    with pytest.raises(SystemExit, match=f'--cores 9999: this process may use {len(cores)}'):
        pipeline.main([ADDP, '--cores', '9999'])


@pytest.mark.parametrize('task', ['addp', 'backbone'])
def test_how_the_cost_of_a_step_grows(tmp_path, capsys, task):
    options = ('--task', task, '--vary', 'size', '--img-size', '32', '64', '--figure', tmp_path / 'growth.svg')
    (group,) = written('cost_growth', tmp_path / 'out.json', *options)
    assert [case['images'] for case in group['cases']] == [1, 1]
    values = {growth['name']: growth for growth in group['growth']}
    assert {'time of a step', 'added memory of a step', 'peak memory with weights and states'} <= set(values)
    assert all(growth['sizes'] == [4, 16] for growth in values.values())
    assert {'attention', 'backbone', 'backward', 'optimizer'} <= set(group['cases'][0]['parts'][0])
    # with two moments of each weight; the larger one has more positions
    held = [case['held_bytes'] for case in group['cases']]
    assert held[0] < held[1] < 1.1 * held[0]
    assert '| exponent in tokens | 4 to 16 | faster than linear |' in capsys.readouterr().out
    assert '</svg>' in (tmp_path / 'growth.svg').read_text()


def test_sizes_of_one_axis_change_alone():
    growth = tool('cost_growth')
    args = growth.parse_args(['--batch-size', '4', '2', '--img-size', '64', '32', '--depth', '3'])
    assert growth.points(args, 'batch') == [(2, 2, 32, None), (4, 4, 32, None)]
    assert growth.points(args, 'size') == [(4, 2, 32, None), (16, 2, 64, None)]
    assert growth.points(args, 'depth') == [(3, 2, 32, 3)]
    with pytest.raises(SystemExit):
        growth.parse_args(['--img-size', '40'])


def measured_lists(folder: Path) -> dict:
    """What data_growth.py writes of a list of images."""
    out, figure = folder / 'out.json', folder / 'lists.svg'
    options = ['--kind', 'list', '--counts', '50', '150', '--num-workers', '1', '--scratch', str(folder / 'scratch')]
    tool('data_growth').main([*options, '--out', str(out), '--figure', str(figure)])
    assert not [*(folder / 'scratch').iterdir()]
    assert '</svg>' in figure.read_text()
    (group,) = json.loads(out.read_text())['groups']
    return group


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_data_sets_of_many_images(tmp_path, capsys, monkeypatch):
    # in this process: a fresh one imports torch for some seconds
    monkeypatch.setattr(data_growth, 'in_fresh_process', lambda function, *args: function(*args))
    try:
        group = measured_lists(tmp_path)
    finally:
        gc.unfreeze()
    assert [one['images'] for one in group['cases']] == [50, 150]
    assert all(one['worker_private_bytes'] > 0 and one['first_seconds'] > 0 for one in group['cases'])
    assert 0 <= group['per_image']['pickle_bytes'] < 0.1
    assert '| per image |' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_each_data_set_is_opened_in_a_fresh_process(tmp_path):
    assert [one['images'] for one in measured_lists(tmp_path)['cases']] == [50, 150]
    processes = [data_growth.in_fresh_process(os.getpid) for _ in range(2)]
    assert len({*processes, os.getpid()}) == 3


def test_an_optimizer_step_and_a_moving_average(tmp_path):
    step, average = written('optimizer_step', tmp_path / 'out.json', ADDP)
    assert [case['case'] for case in step['cases']] == ['plain', 'foreach', 'fused']
    assert [case['case'] for case in average['cases']] == ['plain', 'in one call']


def test_jpeg_decoders_agree(tmp_path, capsys):
    (group,) = written('jpeg_decoders', tmp_path / 'out.json', '--size', '40', '56', '--images', '2')
    names = ['OpenCV', 'Pillow', 'torchvision', 'addp_mm.LoadImage']
    assert [case['case'] for case in group['cases']][:4] == names
    differences = dict(
        re.findall(r'^(.+): differs from OpenCV by at most (\d+)', capsys.readouterr().out, re.MULTILINE)
    )
    assert all(int(differences[name]) <= 2 for name in names)


@pytest.mark.parametrize('path', [FROM_IDS, TOKENIZER], ids=['predictor', 'tokenizer'])
def test_steps_of_the_other_pretrainings(path):
    step = TrainingStep(Config.fromfile(path), batch_size=2, img_size=(64, 64))
    before = [parameter.clone() for parameter in step.model.parameters()]
    step()
    assert any(not torch.equal(one, other) for one, other in zip(step.model.parameters(), before, strict=True))


def test_a_config_of_stored_ids_gets_ids():
    cfg = Config.fromfile(FROM_IDS)
    assert training_size(cfg) == (64, 64)
    batch = synthetic_batch(cfg, 3, (64, 64))
    assert (batch['inputs'].shape, batch['inputs'].dtype) == ((3, 64), torch.int64)


def test_mixed_precision_can_be_switched_off():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))))
    before = cfg.to_dict()
    set_amp(cfg, 'bfloat16')
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    set_amp(cfg, 'float32')
    assert cfg.to_dict() == before


def test_the_command_measures_with_shipped_tools_and_configs(tmp_path):
    steps = speed_steps(Options('cpu', 3, 'published', quick=True), tmp_path)
    assert tuple(steps) == NAMES
    for step in steps.values():
        assert (ROOT / step.command[0]).is_file()
        tool(Path(step.command[0]).stem).parse_args(list(step.command[1:]))
        assert step.command[step.command.index('--out') + 1] == str(step.outputs[0])
    assert '--published' in steps['sampling'].command
    assert '--published' not in speed_steps(Options('cpu'), tmp_path)['sampling'].command


def test_the_page_has_the_tables_and_the_failures():
    about = dict(device='cpu', machine='2 CPU cores', threads=2, load=0.1, versions=dict(torch='2'), matrix_rate={})
    tables = [dict(header=['case', 'ms'], rows=[['one', '5']])]
    measured = dict(title='Operators', groups=[dict(title='nms', about=about, tables=tables, cases=[])])
    arguments = ('addp benchmark-speed', dict(operators=measured), dict(data='no space'))
    page = as_markdown(*arguments)
    assert '| case | ms |\n| --- | ---: |\n| one | 5 |' in page
    assert '- data: no space' in page
    assert as_json(*arguments)['measurements']['operators']['groups'][0]['title'] == 'nms'


@pytest.mark.slow
def test_a_compiled_step_equals_the_uncompiled_one_and_later_steps_compile_nothing(tmp_path, capsys):
    out, options = tmp_path / 'out.json', ('--backend', 'eager', '--batch-size', '2', '--steps', '2', '--reasons')
    (group,) = written('compiled_step', out, FROM_IDS, *options)
    assert [case['case'] for case in group['cases']] == ['not compiled', 'compiled']
    table = json.loads(out.read_text())['compilations']
    (row,) = (dict(zip(table['header'], one, strict=True)) for one in table['rows'])
    assert row['recompilations in 2 steps'] == '0'
    assert row['graphs, recompilations in later steps'] == '0, 0'
    assert float(row['loss differs by']) < 1e-5
    assert float(row['gradients differ by']) < 1e-5
    assert 'graph break (1): Skip' in capsys.readouterr().out


def test_batches_of_a_compiled_step_differ_in_images_and_in_their_number_of_objects():
    cfg = Config.fromfile(ROOT / 'configs/det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py')
    batch = synthetic_batch(cfg, 2, (64, 64))
    varied = [vary(batch, seed) for seed in (0, 1, 0)]
    images, numbers = zip(
        *((one['inputs'], [len(sample.gt_instances) for sample in one['data_samples']]) for one in varied), strict=True
    )
    assert torch.equal(images[0][0], images[2][0])
    assert not torch.equal(images[0][0], images[1][0])
    assert numbers[0] == numbers[2] != numbers[1]
    assert [len(sample.gt_instances) for sample in batch['data_samples']] == [8, 8]
