# Copyright (c) addp_mm contributors. Apache-2.0.
"""The list of applied patches, and the switch that leaves the packages unchanged."""

import os
import subprocess
import sys

from addp_mm.compat import PATCHES, summary
from addp_mm.compat.patch import Patch, applied


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, '-c', code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_patch_has_a_name_and_a_fault_in_one_line():
    assert len({patch.name for patch in PATCHES}) == len(PATCHES)
    for patch in PATCHES:
        assert patch.fault
        assert '\n' not in patch.fault


def test_only_a_patch_that_found_its_fault_is_applied():
    faulty, healthy = (
        Patch(name, 'sys', 'a fault', lambda module, has=has: has)
        for name, has in zip('ab', (True, False), strict=True)
    )
    before = applied()
    faulty(sys)
    healthy(sys)
    assert applied()[len(before) :] == (faulty,)


def test_a_patch_is_applied_once_its_module_is_imported():
    code = """
import addp_mm
from addp_mm.compat import applied, summary, waiting
assert 'ddp_cpu' in [patch.name for patch in waiting()]
import mmengine.model
assert 'ddp_cpu' in [patch.name for patch in applied()]
assert 'ddp_cpu' not in [patch.name for patch in waiting()]
print(summary())
"""
    out = run(code)
    assert out.startswith('addp_mm: applied patches: ')
    assert 'ddp_cpu' in out
    assert 'wait for the import of their module' in out


def test_off_leaves_the_packages_unchanged_except_for_the_extensions(monkeypatch):
    code = """
import importlib.util, sys
import addp_mm
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import CheckpointLoader
from addp_mm.compat import applied, summary, waiting
assert not hasattr(MMDistributedDataParallel.__init__, '__wrapped__')
assert not hasattr(AmpOptimWrapper.__init__, '__wrapped__')
assert not any(type(finder).__name__ == 'MMCVExtFinder' for finder in sys.meta_path)
assert applied() == waiting() == ()
assert CheckpointLoader._schemes[''].__module__ == 'addp_mm.checkpoints.loaders'
print(summary())
"""
    assert run(code, ADDP_MM_COMPAT='OFF') == 'addp_mm: ADDP_MM_COMPAT=off, no patch is applied\n'
    monkeypatch.setenv('ADDP_MM_COMPAT', 'off')
    assert summary() == 'addp_mm: ADDP_MM_COMPAT=off, no patch is applied'
