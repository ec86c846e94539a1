# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/test.py evaluates a k-NN config, from the weights on disk to the accuracy."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import CONFIGS
from PIL import Image
from safetensors.torch import save_file

from addp_mm.engine.loops import NearestNeighbourTestLoop
from addp_mm.models.backbones import ADDPViT


@pytest.mark.slow
def test_the_tool_evaluates_the_weights_that_init_cfg_names(small_scenes, tmp_path, monkeypatch):
    """The accuracy of ``tools/test.py CONFIG`` equals one computed file by file."""
    options = dict(arch=dict(embed_dims=8, num_layers=2, num_heads=2), img_size=64)
    backbone = ADDPViT(**options, pre_norm=True).eval()
    save_file({f'backbone.{name}': value for name, value in backbone.state_dict().items()}, tmp_path / 'w.safetensors')
    config = tmp_path / 'knn.py'
    data = (
        "dict(_delete_=True, type='CustomDataset', data_root={root!r}, data_prefix='objects/{split}', pipeline=steps)"
    )
    config.write_text(
        f"_base_ = '{CONFIGS}/cls/addp-vit-base-p16_knn-cls_in1k-256px.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{options["arch"]}), img_size=64, init_cfg=dict('
        f"checkpoint={str(tmp_path / 'w.safetensors')!r}, prefix='backbone.')))\n"
        "steps = [dict(type='addp_mm.LoadImage'), dict(type='PackInputs')]\n"
        'quiet = dict(num_workers=0, persistent_workers=False)\n'
        f'test_dataloader = dict(quiet, batch_size=3, dataset={data.format(root=str(small_scenes), split="val")})\n'
        'test_cfg = dict(num_neighbours=(3, ), num_classes=10, bank_dataloader=dict(batch_size=4, num_workers=0, '
        f'dataset={data.format(root=str(small_scenes), split="train")}))\n'
    )

    @torch.no_grad()
    def features(split: str) -> list[tuple]:
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        folders = sorted(path for path in (small_scenes / 'objects' / split).iterdir() if path.is_dir())
        found = []
        for label, folder in enumerate(folders):
            for path in sorted(folder.iterdir()):
                pixels = (np.asarray(Image.open(path).convert('RGB')) - mean) / std
                (own,) = backbone(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
                found.append((torch.nn.functional.normalize(own[0].double(), dim=0), label))
        return found

    bank, queries = features('train'), features('val')
    hits = 0
    for own, label in queries:
        ranked = sorted(((float(own @ other), name) for other, name in bank), reverse=True)[:3]
        votes = {}
        for cosine, name in ranked:
            votes[name] = votes.get(name, 0) + math.exp(cosine / 0.07)
        hits += max(votes, key=votes.get) == label
    make_bank, banks = NearestNeighbourTestLoop._make_bank, []
    monkeypatch.setattr(NearestNeighbourTestLoop, '_make_bank', lambda loop: banks.append(make_bank(loop)) or banks[0])
    main = runpy.run_path(str(Path(CONFIGS).parent / 'tools/test.py'))['main']
    main([str(config), '--work-dir', str(tmp_path / 'work')])
    metrics = json.loads((tmp_path / 'work/metrics.json').read_text())
    torch.testing.assert_close(banks[0].features, torch.stack([own for own, _ in bank]).float(), atol=1e-4, rtol=0)
    assert banks[0].labels.tolist() == [label for _, label in bank] == [*range(10)]
    assert metrics['knn/k3_top1'] == pytest.approx(100 * hits / len(queries))
