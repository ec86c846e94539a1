# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations against counts by hand, memory against bytes that real tensors take, and the pages made from them."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis import DryRun, forward_costs, training_memory
from addp_mm.analysis.batches import training_size
from addp_mm.analysis.costs import count_products
from addp_mm.analysis.dry_run import storage_bytes
from addp_mm.analysis.fused_attention import attend, fused_attention_everywhere
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
    with DryRun():
        model = ADDPViT(arch, img_size=224).eval()
        cost = count_products(model, lambda: model(torch.zeros(1, 3, 224, 224)))
    assert cost.macs == by_hand
    assert cost.flops == 2 * by_hand
    assert cost.macs / 1e9 == pytest.approx(published, abs=0.05)
    assert cost.trained == sum(p.numel() for p in model.parameters())
    assert cost.frozen == 0
    blocks_cost = next(part for part in cost.children if part.name == 'blocks')
    assert [part.macs for part in blocks_cost.children] == [block] * blocks


def test_fused_attention_is_attention():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 3, 5, 5, generator=generator, requires_grad=True)
    weights = torch.randn(2, 3, 5, 4, generator=generator)
    results = []
    for function in (F.scaled_dot_product_attention, attend):
        out = function(q, k, v, attn_mask=bias)
        results.append([out, *torch.autograd.grad((out * weights).sum(), (q, k, v, bias))])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(NotImplementedError, match='is_causal'):
        attend(q, k, v, is_causal=True)


def saved_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes of the storages that autograd keeps of a forward pass with true numbers, parameters left out."""
    own, kept = {id(p.untyped_storage()) for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if id(storage) not in own:
            kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), fused_attention_everywhere():
        out = model(images)[0]  # noqa: F841  # alive, and with it all that it needs
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(with_cp=True),
        dict(drop_rate=0.1),
        dict(with_cls_token=False, window_size=3, global_blocks=(1,), use_rel_pos=True),
    ],
)
def test_bytes_without_numbers_are_those_of_real_tensors(options):
    arch = dict(embed_dims=48, num_layers=3, num_heads=4)
    build = dict(arch=arch, img_size=64, patch_size=8, out_type='featmap', drop_path_rate=0.1) | options
    seen = []
    for skip in (False, True):
        with DryRun(skip) as run:
            model, images = ADDPViT(**build).train(), torch.rand(2, 3, 64, 64)
            before = run.live
            out = model(images)[0]
            kept = run.live - before
            run.reset_peak()
            out.sum().backward()
            seen.append((kept, run.peak - before))
    assert seen[0] == seen[1]
    kept, peak = seen[0]
    parameters = storage_bytes(model.parameters())
    assert peak > max(kept, parameters)
    if not options.get('with_cp'):  # checkpoints have hooks of their own
        model = ADDPViT(**build).train()
        # autograd also holds the images, which were made before
        assert kept == pytest.approx(saved_bytes(model, images) - images.nbytes, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize('path', [CLS, PRETRAIN, DET, SEG], ids=lambda path: path.parent.name)
def test_memory_of_each_kind_of_config_equals_real_bytes(path):
    cfg = Config.fromfile(path)
    analytic, real = (training_memory(cfg, batch=2, skip=skip) for skip in (True, False))
    for key in ('parameters', 'gradients', 'optimizer', 'batch'):
        assert getattr(analytic, key) == getattr(real, key)
    # a real RPN finds other things than one without numbers: a few targets differ
    tolerance = 0.02 if path == DET else 1e-3
    assert analytic.activations == pytest.approx(real.activations, rel=tolerance)
    assert analytic.step_peak == pytest.approx(real.step_peak, rel=tolerance)
    assert analytic.peak >= analytic.step_peak + analytic.optimizer


def test_precision_and_checkpointing_change_what_they_should():
    cfg = Config.fromfile(CLS)
    plain, checkpointed, half = (
        training_memory(cfg, 8, **options)
        for options in (dict(with_cp=False), dict(with_cp=True), dict(precision='bfloat16', with_cp=False))
    )
    assert checkpointed.activations < 0.5 * plain.activations
    assert half.activations < 0.8 * plain.activations
    assert plain.parameters == checkpointed.parameters == half.parameters
    assert plain.optimizer == 2 * plain.gradients


def test_frozen_parts_of_a_pretraining_are_told_apart():
    cost = forward_costs(Config.fromfile(PRETRAIN))
    parts = {part.name: part for part in cost.children}
    assert all(parts[name].frozen and not parts[name].trained for name in ('tokenizer', 'predictor'))
    assert all(parts[name].trained and not parts[name].frozen for name in ('backbone', 'neck'))
    assert all(parts[name].macs for name in ('tokenizer', 'predictor', 'backbone', 'neck', 'head'))


@pytest.mark.slow
def test_mask_rcnn_vitdet_base_trains_within_24_gb():
    cfg = Config.fromfile(VITDET)
    assert training_size(cfg) == (1024, 1024)
    assert cfg.model.backbone.with_cp
    memory = training_memory(cfg, batch=1)
    # 24 GB less 1 GiB for the context and a tenth for the allocator's fragments
    assert memory.peak < 0.9 * 24e9 - 2**30
    cost = forward_costs(cfg)
    # ViTDet, arXiv 2203.16527, table 5: 111 M parameters, 0.8 T multiply-adds
    assert cost.trained / 1e6 == pytest.approx(111, rel=0.05)
    assert cost.macs / 1e12 == pytest.approx(0.8, rel=0.1)


def test_tool_prints_the_tree_and_the_memory(capsys):
    get_flops = tool('analysis_tools/get_flops.py')
    get_flops.main([str(CLS), '--depth', '1', '--memory', '--batch', '2', '--shape', '32', '32'])
    printed = capsys.readouterr().out
    assert '2 image(s) of 32 x 32 px; one MAC is two FLOPs' in printed
    total, backbone = (
        re.search(rf'^ *{name} +\| +([\d.]+) \| +([\d.]+)', printed, re.M)
        for name in ('ImageClassifier', 'backbone: ADDPViT')
    )
    assert float(total[2]) == pytest.approx(2 * float(total[1]), abs=2e-3)
    assert float(backbone[1]) <= float(total[1])
    assert len(re.findall(r'^(?:float32|bfloat16) +\| +(?:True|False) ', printed, re.M)) == 4
    with pytest.raises(SystemExit):
        get_flops.parse_args([str(CLS), '--batch', '0'])
    knn = CONFIGS / 'cls/addp-vit-base-p16_knn-cls_in1k-256px.py'
    with pytest.raises(SystemExit, match='trains nothing'):
        get_flops.main([str(knn), '--memory', '--depth', '0'])


def test_tool_counts_one_view_of_a_model_that_averages_views(capsys):
    get_flops = tool('analysis_tools/get_flops.py')
    one = CONFIGS / 'seg/upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py'
    get_flops.main([str(one), '--depth', '0'])
    whole = capsys.readouterr().out
    get_flops.main([str(one.with_stem(f'{one.stem}-ms')), '--depth', '0'])
    first, rest = capsys.readouterr().out.split('\n', 1)
    assert 'one view' in first
    assert rest == whole


def test_page_of_memory_holds_every_recipe_and_says_how_it_was_made():
    memory_table = tool('analysis_tools/memory_table.py')
    page = memory_table.PAGE.read_text()
    rows = re.findall(r'^\| \[.*\]\(\.\./\.\./configs/(.*?)\) \|.*\| (.*) \|$', page, re.M)
    assert [name for name, _ in rows] == memory_table.recipes()
    assert {how for _, how in rows} == {'analytic'}
    assert 'not measured on a GPU' in page


def test_step_time_on_the_cpu(capsys):
    step_time = tool('benchmarks/step_time.py')
    step_time.main(
        [str(CLS), str(PRETRAIN), '--device', 'cpu', '--batch', '2', '--rounds', '1', '--steps', '2', '--warmup', '0']
    )
    rows = re.findall(
        r'^\| \S+/(\S+)\.py \| 2 x 64 x 64 \| float32 \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \| (.*) \|$',
        capsys.readouterr().out,
        re.M,
    )
    assert [row[0] for row in rows] == [CLS.stem, PRETRAIN.stem]
    for _, milliseconds, images, memory in rows:
        assert float(images) == pytest.approx(2000 / float(milliseconds), rel=0.02)
        assert memory == 'not measured'


@pytest.mark.skipif(torch.cuda.is_available(), reason='asks for a GPU where there is none')
def test_step_time_needs_the_device_it_is_asked_for():
    with pytest.raises(SystemExit, match='PyTorch finds no GPU'):
        tool('benchmarks/step_time.py').main([str(CLS), '--device', 'cuda'])
