# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations against counts by hand, the measured training step, and the page of memory."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.uncomputed import Uncomputed
from mmengine.config import Config
from torch import nn

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis import TrainingStep, count_flops, forward_costs
from addp_mm.analysis.batches import training_size
from addp_mm.config.config_file import ConfigError
from addp_mm.models.backbones import ADDPViT

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
CLS = CONFIGS / 'cls/addp-vit-nano-p8_from-scratch_1xb32-fp32-300i_fashion-scenes-64px.py'
PRETRAIN = CONFIGS / 'pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'
DET = CONFIGS / 'det/mask-rcnn_addp-vit-nano-p8_from-scratch_1xb16-fp32-300i_fashion-scenes-64px.py'
SEG = CONFIGS / 'seg/upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px.py'
VITDET = CONFIGS / 'det/mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py'


def tool(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / 'tools' / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('arch, width, blocks, published', [('base', 768, 12, 17.6), ('large', 1024, 24, 61.6)])
def test_a_vit_as_counted_by_hand(arch, width, blocks, published):
    tokens = 14 * 14 + 1
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    by_hand = (tokens - 1) * 3 * 16**2 * width + blocks * block
    model = ADDPViT(arch, img_size=224).eval()
    with Uncomputed():
        cost = count_flops(model, lambda: model(torch.zeros(1, 3, 224, 224)))
    assert cost.macs == by_hand
    assert cost.flops == 2 * by_hand
    assert cost.macs / 1e9 == pytest.approx(published, abs=0.05)
    assert cost.trained == sum(p.numel() for p in model.parameters())
    assert cost.frozen == 0
    blocks_cost = next(part for part in cost.children if part.name == 'blocks')
    assert [part.macs for part in blocks_cost.children] == [block] * blocks


def test_a_module_that_is_called_by_another_method_counts_once_in_the_total():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4, bias=False)

        def loss(self, x):
            return self.fc(x).sum()

    model = nn.Module()
    model.body, model.head = nn.Linear(8, 8, bias=False), Head()
    cost = count_flops(model, lambda: model.head.loss(model.body(torch.ones(2, 8))))
    assert {part.name: part.macs for part in cost.children} == {'body': 2 * 64, 'head': 2 * 32}
    assert cost.macs == 2 * 64 + 2 * 32


def test_frozen_components_of_a_pretraining_are_separate():
    cost = forward_costs(Config.fromfile(PRETRAIN))
    parts = {part.name: part for part in cost.children}
    assert all(parts[name].frozen and not parts[name].trained for name in ('tokenizer', 'predictor'))
    assert all(parts[name].trained and not parts[name].frozen for name in ('backbone', 'neck'))
    assert all(parts[name].macs for name in ('tokenizer', 'predictor', 'backbone', 'neck', 'head'))
    assert forward_costs(Config.fromfile(PRETRAIN)) == cost


@pytest.mark.slow
def test_costs_of_mask_rcnn_vitdet_base_are_those_of_the_paper():
    cfg = Config.fromfile(VITDET)
    assert training_size(cfg) == (1024, 1024)
    with Uncomputed():
        cost = forward_costs(cfg)
    # ViTDet, arXiv 2203.16527, table 5: 111 M parameters, 0.8 T multiply-adds
    assert cost.trained / 1e6 == pytest.approx(111, rel=0.05)
    assert cost.macs / 1e12 == pytest.approx(0.8, rel=0.1)
    # Independent of the random weights: 1000 proposals, and masks of 100 of them.
    roi_head = next(part for part in cost.children if part.name == 'roi_head')
    assert {part.name: round(part.macs / 1e9, 3) for part in roi_head.children if part.flops} == {
        'roi_head.bbox_head': 128.861,
        'roi_head.mask_head': 52.986,
    }


def test_tool_prints_the_tree(capsys):
    get_flops = tool('analysis_tools/get_flops.py')
    get_flops.main([str(CLS), '--depth', '1', '--batch-size', '2', '--img-size', '32', '32'])
    printed = capsys.readouterr().out
    assert '2 image(s) of 32 x 32 px; one MAC is two FLOPs' in printed
    total, backbone = (
        re.search(rf'^ *{name} +\| +([\d.]+) \| +([\d.]+)', printed, re.M)
        for name in ('ImageClassifier', 'backbone: ADDPViT')
    )
    assert float(total[2]) == pytest.approx(2 * float(total[1]), abs=2e-3)
    assert float(backbone[1]) <= float(total[1])


@pytest.mark.parametrize('path', ['analysis_tools/get_flops.py', 'benchmarks/step_time.py'])
def test_wrong_and_renamed_options_are_refused(path, capsys):
    parse_args = tool(path).parse_args
    for options, words in (
        (['--batch-size', '0'], '--batch-size: 0 must be at least 1'),
        (['--batch', '2'], '--batch was renamed: use --batch-size'),
        (['--shape', '32', '32'], '--shape was renamed: use --img-size'),
    ):
        with pytest.raises(SystemExit):
            parse_args([str(CLS), *options])
        assert words in capsys.readouterr().err


def test_tool_counts_one_view_of_a_model_that_averages_views(capsys):
    get_flops = tool('analysis_tools/get_flops.py')
    one = CONFIGS / 'seg/upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py'
    options = ['--depth', '0', '--img-size', '64', '64']
    get_flops.main([str(one), *options])
    whole = capsys.readouterr().out
    get_flops.main([str(one.with_stem(f'{one.stem}-ms')), *options])
    first, rest = capsys.readouterr().out.split('\n', 1)
    assert 'one view' in first
    assert rest == whole


@pytest.mark.parametrize('path', [CLS, PRETRAIN, DET, SEG], ids=lambda path: path.parent.name)
def test_a_training_step_changes_the_trained_weights_only(path):
    torch.manual_seed(0)
    step = TrainingStep(Config.fromfile(path), batch_size=2)
    assert (step.batch_size, step.img_size, step.precision) == (2, (64, 64), 'float32')
    before = {name: parameter.clone() for name, parameter in step.model.named_parameters()}
    step()
    for name, parameter in step.model.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, before[name]), name
    assert any(not torch.equal(parameter, before[name]) for name, parameter in step.model.named_parameters())
    # at least weights and gradients, and less than the memory of any machine that runs the tests
    assert sum(p.nbytes for p in before.values()) < step.peak_memory() < 2**40


def test_a_config_that_is_only_tested_has_no_training_step():
    knn = Config.fromfile(CONFIGS / 'cls/addp-vit-base-p16_knn-cls_in1k-256px.py')
    with pytest.raises(ConfigError, match='no optim_wrapper'):
        TrainingStep(knn)


def test_page_of_memory_has_every_measured_recipe():
    memory_table = tool('analysis_tools/memory_table.py')
    page = memory_table.PAGE.read_text()
    assert page.startswith(memory_table.HEAD)
    rows = re.findall(r'^\| \[.*\]\(\.\./\.\./configs/(.*?)\) \| (\d+) x .* \| (.*) \|$', page, re.M)
    assert {name: int(batch_size) for name, batch_size, _ in rows} == memory_table.RECIPES
    assert all((CONFIGS / name).is_file() for name, _, _ in rows)
    assert all(peak == 'not measured' or 1 < float(peak) < 24 for _, _, peak in rows)


def test_memory_is_measured_in_a_process_of_its_own():
    peak = tool('analysis_tools/memory_table.py').measured_peak(CLS, 2)
    assert 0.2 < float(peak) < 8


@pytest.mark.parametrize('path', [CLS, DET, SEG], ids=lambda path: path.parent.name)
def test_inference_leaves_the_weights_as_they_are(path):
    step = TrainingStep(Config.fromfile(path), batch_size=2)
    step.model.eval()
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.predict()
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())


def test_step_time_writes_every_step_of_both_modes(tmp_path, capsys):
    options = ['--device', 'cpu', '--batch-size', '2', '--rounds', '2', '--steps', '2', '--warmup', '0']
    out = tmp_path / 'times.json'
    tool('benchmarks/step_time.py').main([str(CLS), *options, '--mode', 'training', 'inference', '--out', str(out)])
    printed = capsys.readouterr().out
    assert printed.index('inference:') < printed.index('training:')
    (found,) = json.loads(out.read_text())['configs']
    assert (found['batch_size'], found['img_size'], found['precision']) == (2, [64, 64], 'float32')
    assert list(found['modes']) == ['inference', 'training']
    for measured in found['modes'].values():
        assert len(measured['seconds']) == 4
        assert min(measured['seconds']) > 0
        assert measured['peak_bytes'] > 2**27


def test_counts_are_written_with_all_modules(tmp_path, capsys):
    out = tmp_path / 'counts.json'
    tool('analysis_tools/get_flops.py').main([str(CLS), '--depth', '0', '--out', str(out)])
    cost = json.loads(out.read_text())['cost']
    assert f'{cost["flops"] / 1e9:,.3f}' in capsys.readouterr().out
    assert {child['name'] for child in cost['children']} >= {'backbone', 'head'}
    assert cost['trained'] == sum(child['trained'] for child in cost['children'])


def test_step_time_on_the_cpu(capsys):
    step_time = tool('benchmarks/step_time.py')
    options = ['--device', 'cpu', '--batch-size', '2', '--rounds', '1', '--steps', '2', '--warmup', '0']
    step_time.main([str(CLS), str(PRETRAIN), *options])
    printed = capsys.readouterr().out
    rows = re.findall(
        r'^\| \S+/(\S+)\.py \| 2 x 64 x 64 \| float32 \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \| ([\d.]+) \|$', printed, re.M
    )
    assert [row[0] for row in rows] == [CLS.stem, PRETRAIN.stem]
    for _, milliseconds, images, memory in rows:
        assert float(images) == pytest.approx(2000 / float(milliseconds), rel=0.02)
        assert float(memory) > 0
    assert 'run one config at a time' in printed
    assert 'resident memory of this process' in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason='asks for a GPU where there is none')
def test_step_time_needs_the_given_device():
    with pytest.raises(SystemExit, match='--device cuda: this PyTorch cannot use the device here'):
        tool('benchmarks/step_time.py').main([str(CLS), '--device', 'cuda'])
