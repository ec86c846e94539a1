# Copyright (c) addp_mm contributors. Apache-2.0.
"""A config with our backbone works if this package, mmdet or mmseg is imported first."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.hand_swaps import DETECTORS, SEGMENTORS, write_swap


def run_in_new_process(source: str) -> str:
    """Run a script in a new process; return its output."""
    done = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


BUILD_AND_RUN = """
import sys
{first}
from mmengine.config import Config
from mmengine.registry import init_default_scope
cfg = Config.fromfile({path!r})
cfg.model.num_queries = cfg.model.test_cfg.max_per_img = 20
init_default_scope('mmdet')
from mmdet.registry import MODELS
import torch
torch.manual_seed(0)
model = MODELS.build(cfg.model)
model.init_weights()
from mmengine.optim import build_optim_wrapper
from helpers.tiny_detection import detection_batch
logged = model.train_step(detection_batch(((64, 96), )), build_optim_wrapper(model, cfg.optim_wrapper))
model.eval()
found = model.test_step(detection_batch(((64, 96), )))[0].pred_instances
print(type(model.backbone).__name__, bool(torch.isfinite(logged['loss'])), len(found))
"""
# Without operators, mmdet.models cannot be imported before addp_mm. DINO calls none on the CPU, so
# an empty module replaces the operators of mmcv. mmpretrain must not find transformers, which peft
# installs: before addp_mm is imported, it fails beside the current one.
WITH_OPERATORS = """
import mmpretrain.utils.dependency
mmpretrain.utils.dependency.WITH_MULTIMODAL = False
from importlib.machinery import ModuleSpec
from types import ModuleType
try:
    import mmcv._ext
except ImportError:
    class Operators(ModuleType):
        def __getattr__(self, name):
            if name.startswith('__'):
                raise AttributeError(name)
    sys.modules['mmcv._ext'] = Operators('mmcv._ext')
    sys.modules['mmcv._ext'].__spec__ = ModuleSpec('mmcv._ext', None)
import mmdet.models
assert 'addp_mm' not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'first, custom_imports',
    [('import addp_mm', False), ('import mmdet.registry', True), (WITH_OPERATORS, False), (WITH_OPERATORS, True)],
    ids=['addp_mm', 'mmdet-custom_imports', 'mmdet.models', 'mmdet.models-custom_imports'],
)
def test_both_orders_of_import(first, custom_imports, tmp_path):
    base, model = DETECTORS['dino']
    path = write_swap(tmp_path / 'swap.py', f'mmdet::{base}', model, custom_imports)
    printed = run_in_new_process(BUILD_AND_RUN.format(first=first, path=str(path)))
    assert printed.split()[-3:] == ['ADDPViT', 'True', '20']


@pytest.mark.slow
def test_mmseg_may_be_imported_first(tmp_path):
    base, model = SEGMENTORS['upernet']
    # by its path: the forks' mmengine finds mmseg::… only after addp_mm is imported
    base = Path(find_spec('mmseg').origin).parent / '.mim/configs' / base
    path = write_swap(tmp_path / 'swap.py', str(base), model, custom_imports=True)
    source = f"""
import mmseg.registry
from mmengine.config import Config
cfg = Config.fromfile({str(path)!r})
cfg.model.backbone.pad_to_patch = True
from addp_mm.swap.trial import try_config
trial = try_config(cfg)
assert not trial.idle and trial.predicted == ('pred_sem_seg',)
print('loss', trial.losses['loss'])
"""
    assert 'loss' in run_in_new_process(source)
