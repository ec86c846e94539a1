# Copyright (c) addp_mm contributors. Apache-2.0.
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_loss_is_never_below_its_lower_bound(tmp_path):
    from PIL import Image

    from addp_mm.datasets.fashion.fashion_mnist import load_garments

    scenes = SceneGenerator(load_garments('val'), 64, 'val', 0)
    for index in range(2):
        Image.fromarray(scenes.scene(index).image).save(tmp_path / f'{index}.png')
    (config,) = (ROOT / 'configs/pretrain').glob('addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
    command = [
        sys.executable,
        str(ROOT / 'tools/analysis_tools/target_entropy.py'),
        str(config),
        'addp_mm://addp_nano-p8.safetensors',
        str(tmp_path),
        '--levels',
        '2',
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r'entropy of the targets ([\d.]+) .* ADDP loss ([\d.]+), lower bound ([\d.]+)', done.stdout)
    assert len(lines) == 2
    for entropy, loss, least in (map(float, line) for line in lines):
        # smoothing adds entropy, and a cross entropy is never below the entropy of its target
        assert 0 < entropy <= least + 0.01
        assert least <= loss
        assert least < math.log(1026)
