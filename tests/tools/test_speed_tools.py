# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tools that measure speed, on small models: what they count and write. No time is compared."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from helpers.published_layout import write_published_layout
from mmengine.config import Config

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis import TrainingStep
from addp_mm.analysis.batches import synthetic_batch, training_size
from addp_mm.benchmark.speed_page import as_json, as_markdown
from addp_mm.benchmark.speed_steps import NAMES, Options, speed_steps
from addp_mm.engine.runner_cfg import set_amp

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
    assert inference['addp_mm'] == pytest.approx(inference['mmpretrain'], rel=0.1)
    assert inference['addp_mm'] == pytest.approx(inference['timm'], rel=0.1)


def test_every_operator_agrees_with_its_reference():
    operators = tool('operators')
    for name, make in operators.OPERATORS.items():
        own, other = make(operators.Inputs(torch.device('cpu'), 0.05))
        operators.check_agreement(name, own(), other())
    with pytest.raises(SystemExit, match='nms: the results differ'):
        operators.check_agreement('nms', torch.tensor([1, 2]), torch.tensor([2, 1]))


def test_operators_take_turns_with_their_references(tmp_path):
    chosen = ['nms', 'roi_pool']
    groups = written('operators', tmp_path / 'out.json', '--scale', '0.05', '--op', *chosen)
    assert [group['title'].partition(':')[0] for group in groups] == chosen
    assert [case['case'] for case in groups[0]['cases']] == ['reference', 'addp_mm']


def test_the_data_pipeline_with_made_up_images(tmp_path):
    options = ('--made-up', '6', '--made-up-size', '64', '64', '--batch-size', '2', '--batches', '2')
    (group,) = written('data_pipeline', tmp_path / 'out.json', ADDP, *options, '--num-workers', '0', '1')
    assert [case['case'] for case in group['cases']] == ['0 workers', '1 workers']
    assert all(case['images'] == 4 for case in group['cases'])


@pytest.mark.parametrize('path', [FROM_IDS, TOKENIZER], ids=['predictor', 'tokenizer'])
def test_steps_of_the_other_pretrainings(path):
    cfg = Config.fromfile(path)
    assert training_size(cfg) == (64, 64)
    step = TrainingStep(cfg, batch_size=2)
    before = [parameter.clone() for parameter in step.model.parameters()]
    step()
    assert any(not torch.equal(one, other) for one, other in zip(step.model.parameters(), before, strict=True))


def test_a_config_of_stored_ids_gets_ids():
    batch = synthetic_batch(Config.fromfile(FROM_IDS), 3, (64, 64))
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
        assert step.command[-6:-4] == ('--out', str(step.outputs[0]))
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
