# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp doctor`` reports a working environment as ok, and names a fault with its remedy."""

import builtins
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from addp_mm import doctor
from addp_mm.compat.ops import OPS
from addp_mm.compat.versions import INSTALL_ORIGINALS, installed_version
from addp_mm.doctor import devices, openmmlab, operators, packages, training


def report(capsys, *options) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        doctor.main(options)
    return stop.value.code, capsys.readouterr().out


def findings(check) -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in check()}


@pytest.mark.slow
def test_this_environment_works_and_trains():
    done = subprocess.run([sys.executable, '-m', 'addp_mm', 'doctor', '--json'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found['error'] == 0
    by_subject = {finding['subject']: finding for finding in found['findings']}
    assert {'Python', 'torch', 'torchvision', 'opencv', 'mmengine', 'mmcv operators', 'patches'} <= set(by_subject)
    assert 'loss' in by_subject['training on cpu']['text']


def test_both_families_at_once_are_an_error_with_a_remedy(capsys, monkeypatch):
    installed = {'mmengine': '0.10.7', 'onedl-mmengine': '0.10.12', 'timm': '0.9.2'}
    for module in (packages, openmmlab):
        monkeypatch.setattr(module, 'installed_version', lambda name: installed.get(name) or installed_version(name))
    monkeypatch.setattr(doctor, 'CHECKS', (packages.check_requirements, openmmlab.check_openmmlab))
    status, text = report(capsys)
    assert status == 1
    assert 'error    timm: 0.9.2 is not supported' in text
    assert "-> pip install 'timm>=1.0.20'" in text
    assert 'mmengine: mmengine 0.10.7 (original), onedl-mmengine 0.10.12 (onedl fork)' in text
    assert 'error    OpenMMLab: mmengine: installed both' in text
    assert '-> pip uninstall -y mmengine' in text
    assert f'-> {INSTALL_ORIGINALS}' in text
    assert '2 error(s)' in text


@pytest.mark.parametrize(
    'module, check, subject, remedy',
    [
        ('cv2', packages.check_opencv, 'opencv', 'opencv-python-headless'),
        ('torch', devices.check_torch, 'torch', 'https://pytorch.org'),
        ('torchvision', devices.check_torch, 'torchvision', 'of the same release'),
    ],
)
def test_a_package_that_does_not_load_is_an_error(monkeypatch, module, check, subject, remedy):
    import_ = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == module:
            raise ImportError('libGL.so.1: cannot open shared object file\nmore')
        return import_(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', broken)
    finding = findings(check)[subject]
    assert finding.status == 'error'
    assert 'ImportError: libGL.so.1: cannot open shared object file' in finding.text
    assert remedy in finding.remedy


def test_a_missing_package_is_a_warning_and_mmengine_an_error(monkeypatch):
    for module in (packages, openmmlab):
        monkeypatch.setattr(module, 'installed_version', lambda name: None)
        monkeypatch.setattr(module, 'find_spec', lambda name: None)
    found = findings(openmmlab.check_openmmlab)
    assert {name: found[name].status for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')} == {
        'mmengine': 'error',
        'mmcv': 'warning',
        'mmdet': 'warning',
        'mmseg': 'warning',
        'mmpretrain': 'warning',
    }
    assert INSTALL_ORIGINALS in found['mmengine'].remedy
    assert findings(packages.check_setuptools)['setuptools'].remedy == "pip install 'setuptools<81'"


def test_a_step_that_fails_is_an_error_and_does_not_end_the_report(capsys, monkeypatch):
    def fails(device):
        raise RuntimeError(f'no kernel for {device}')

    monkeypatch.setattr(training, 'train_step', fails)
    monkeypatch.setattr(doctor, 'CHECKS', (training.check_training, packages.check_setuptools))
    status, text = report(capsys, '--json')
    found = json.loads(text)
    assert status == 1
    assert found['findings'][0]['text'].startswith('RuntimeError: no kernel for cpu')
    assert found['findings'][-1]['subject'] == 'setuptools'


def test_a_check_that_raises_an_exception_is_an_error(capsys, monkeypatch):
    def check_moon():
        raise OSError('out of reach')

    monkeypatch.setattr(doctor, 'CHECKS', (check_moon,))
    status, text = report(capsys)
    assert status == 1
    assert 'error    moon: not checked: OSError: out of reach' in text


def test_operators_are_listed_with_who_provides_them(capsys, monkeypatch):
    for name in ('forward', 'backward'):
        monkeypatch.delattr(f'mmcv._ext.indice_conv_{name}')
    assert doctor.main(['--ops', '--json']) is None
    found = {one['name']: one for one in json.loads(capsys.readouterr().out)}
    assert {one['provider'] for one in found.values()} == {operators.OURS, operators.MISSING}
    assert (found['roi_align']['passes'], found['roi_align']['module']) == ('forward, backward', 'roi_align')
    assert found['nms']['passes'] == 'forward'
    for name, functions in (('deform_conv', 3), ('sync_bn', 5), ('upfirdn2d', 1), ('filtered_lrelu', 1)):
        assert (found[name]['passes'], len(found[name]['functions'])) == ('forward, backward', functions)
    assert found['indice_conv'] == dict(
        name='indice_conv',
        module='sparse_ops',
        provider='-',
        passes='-',
        functions=found['indice_conv']['functions'],
        missing=found['indice_conv']['functions'],
    )
    # each other operator of this package that mmcv asks for is in the list
    asked = {name for one in found.values() for name in one['functions']}
    ours = {name for one in found.values() if one['provider'] == 'addp_mm' for name in one['functions']}
    assert ours - {name for one in found.values() for name in one['missing']} == asked & {*OPS} - {
        *found['indice_conv']['missing']
    }
    doctor.main(['--ops'])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found) + 4
    assert lines[-2].startswith(f'{len(found)} operators: 0 compiled, ')
    if not torch.accelerator.is_available():
        assert lines[-1] == 'Device: cpu. Computed on the CPU: all'


def test_compiled_operators_are_told_apart():
    extension = SimpleNamespace(
        __spec__=SimpleNamespace(origin='/site-packages/mmcv/_ext.so'), roi_align_forward=print, nms=print
    )
    names = ['roi_align_forward', 'roi_align_backward']
    found = operators._operator('roi_align', 'roi_align', names, extension)
    assert (found.provider, found.passes, found.missing) == ('compiled', 'forward', ('roi_align_backward',))


def test_operators_without_mmcv_have_a_remedy(capsys, monkeypatch):
    monkeypatch.setattr(operators, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit, match='mmcv is not installed: pip install'):
        doctor.main(['--ops'])
