# Copyright (c) addp_mm contributors. Apache-2.0.
"""The VQGAN configs: names, models, optimizers, and one step at reduced size."""

import re

import pytest
import torch
from helpers.recipes import CONFIGS, build_on_meta, build_recipe, load_recipe, recipe_scope, shrink
from mmengine.optim import build_optim_wrapper

from addp_mm.checks.unknown_arguments import check_config
from addp_mm.registry import HOOKS

PATHS = sorted((CONFIGS / 'pretrain').glob('vqgan_*.py'))
FULL = 'pretrain/vqgan_p16_8xb16-bf16-400k_in1k-256px.py'
TINY = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=8,
    channel_mults=(1,),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=32,
    embed_dims=4,
    num_groups=4,
)


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_names_agree_with_the_configs(path):
    cfg = load_recipe(path)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    gpus, batch, precision, thousands, size = re.search(r'_(\d+)xb(\d+)-(\w+)-(\d+)k_.*-(\d+)px$', path.stem).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_cfg.max_iters == 1000 * int(thousands)
    kind = {'bf16': 'AmpOptimWrapper', 'fp32': 'OptimWrapper'}[precision]
    assert {cfg.optim_wrapper[part].type for part in ('tokenizer', 'discriminator')} == {kind}
    schedule = cfg.model.schedule
    last = schedule.start + schedule.alone + schedule.ramp
    average = next(hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    assert average.begin_iter == cfg.model.restart_until
    assert max(last, cfg.model.restart_until) < cfg.train_cfg.max_iters / 1.5
    if precision == 'fp32':
        assert cfg.model.restart_until <= schedule.start
    if int(size) == 256:
        assert cfg.train_pipeline[2].scale == cfg.val_dataloader.dataset.pipeline[2].crop_size == 256
    with recipe_scope(cfg):
        for hook in cfg.custom_hooks:
            HOOKS.build(hook)


def test_the_full_size_has_the_released_layout_and_is_trained_as_a_whole():
    cfg = load_recipe(FULL)
    model = build_on_meta(cfg)
    tokenizer = model.tokenizer
    assert (tokenizer.stride, tuple(tokenizer.codes.weight.shape)) == (16, (1024, 256))
    assert not any(name.startswith('perceptual') for name, _ in model.named_parameters())
    with recipe_scope(cfg):
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert {
        name: sum(p.numel() for group in part.param_groups for p in group['params']) for name, part in wrapper.items()
    } == {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ('tokenizer', 'discriminator')}
    assert wrapper.get_lr() == {'tokenizer.lr': [1e-4], 'discriminator.lr': [1e-4]}


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_a_step_at_reduced_size(path):
    """Perceptual losses of ViTs use the shipped weights; VGG's weights are not available here."""
    cfg = shrink(
        load_recipe(path),
        **{
            'model.tokenizer': TINY,
            'model.quantize_from': 0,
            'model.schedule': dict(start=0),
            'model.discriminator.num_layers': 1,
            'model.discriminator.base_channels': 4,
        },
    )
    nano = load_recipe('pretrain/vqgan_nano-p8_1xb16-fp32-4k_fashion-scenes-64px.py').model.perceptual
    assert cfg.model.perceptual.type == nano.type
    cfg.model.perceptual = nano
    model = build_recipe(cfg)
    model.init_weights()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = dict(inputs=torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8), data_samples=None)
    with recipe_scope(cfg):
        logged = model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert logged['loss_perceptual'] > 0
    assert logged['discriminator_loss_hinge'] > 0
    assert 'loss_generator' in logged
    # the hinge gives the last bias a zero gradient as long as all logits are between -1 and 1
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert still <= {'discriminator.layers.5.bias'}
