# Copyright (c) addp_mm contributors. Apache-2.0.
import math
import re
from pathlib import Path

import pytest

from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_loss_is_never_below_its_lower_bound(tmp_path, run_tool):
    from PIL import Image

    from addp_mm.datasets.fashion.fashion_mnist import load_garments

    scenes = SceneGenerator(load_garments('val'), 64, 'val', 0)
    for index in range(2):
        Image.fromarray(scenes.scene(index).image).save(tmp_path / f'{index}.png')
    (config,) = (ROOT / 'configs/pretrain').glob('addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
    checkpoint = 'addp_mm://addp_nano-p8.safetensors'
    done = run_tool('analysis_tools/target_entropy.py', config, checkpoint, tmp_path, '--levels', 2)
    assert done.status == 0, done.output
    lines = re.findall(r'entropy of the targets ([\d.]+) .* ADDP loss ([\d.]+), lower bound ([\d.]+)', done.output)
    assert len(lines) == 2
    for entropy, loss, least in (map(float, line) for line in lines):
        # smoothing adds entropy, and a cross entropy is never below the entropy of its target
        assert 0 < entropy <= least + 0.01
        assert least <= loss
        assert least < math.log(1026)
