# Copyright (c) addp_mm contributors. Apache-2.0.
"""The nano LoRA recipe by the tools: trained, resumed, exported, and loaded without adapters."""

import runpy

import pytest
import torch
from helpers.recipes import load_recipe
from helpers.run_tools import ROOT

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.models.layers.lora_weights import is_adapter
from addp_mm.registry import MODELS

RECIPE = 'det/mask-rcnn_addp-vit-nano-p8_lora_1xb16-fp32-300i_fashion-scenes-64px.py'


def weights_of(path) -> dict:
    return load_checkpoint_file(str(path))['state_dict']


@pytest.mark.slow
def test_train_resume_and_export(tmp_path, small_scenes, run_tool):
    options = [
        f'train_dataloader.dataset.data_root={small_scenes}',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=100',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        f'val_dataloader.dataset.data_root={small_scenes}',
        f'val_evaluator.ann_file={small_scenes}/annotations/instances_val.json',
    ]
    config = ROOT / 'configs' / RECIPE
    train = ('train.py', config, '--cfg-options', *options)
    finished = run_tool(*train, '--work-dir', tmp_path / 'whole')
    assert finished.status == 0, finished.output
    whole = weights_of(tmp_path / 'whole/iter_4.pth')

    shipped = weights_of(ROOT / 'addp_mm/assets/addp_nano-p8.safetensors')
    plain = {name for name in whole if name.startswith('backbone.') and not is_adapter(name)}
    assert [name for name in plain if not torch.equal(whole[name], shipped[name].float())] == []
    zero = [name for name in whole if '.lora_B.' in name and not whole[name].any()]
    assert zero == []
    assert sum(map(is_adapter, whole)) == 6 * 4 * 2 + 1

    finished = run_tool(*train, '--work-dir', tmp_path / 'resumed', '--resume', tmp_path / 'whole/iter_2.pth')
    assert finished.status == 0, finished.output
    resumed = weights_of(tmp_path / 'resumed/iter_4.pth')
    assert whole.keys() == resumed.keys()
    assert [name for name, weight in whole.items() if not torch.equal(weight, resumed[name])] == []

    out = tmp_path / 'merged.safetensors'
    export = runpy.run_path(str(ROOT / 'tools/model_converters/export_weights.py'))['main']
    export([str(tmp_path / 'whole/iter_4.pth'), str(out), '--prefix', 'backbone.'])
    cfg = load_recipe(RECIPE).model.backbone
    del cfg.init_cfg
    adapted = MODELS.build(cfg).eval()
    adapted.load_state_dict({name[9:]: weight for name, weight in whole.items() if name.startswith('backbone.')})
    del cfg.lora
    merged = MODELS.build({**cfg, 'init_cfg': dict(type='addp_mm.Pretrained', checkpoint=str(out), strict=True)}).eval()
    merged.init_weights()
    image = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(merged(image), adapted(image), atol=1e-5, rtol=1e-5)
