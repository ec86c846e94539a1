# Copyright (c) addp_mm contributors. Apache-2.0.
"""Known conflicts of an environment, each with the command that repairs it. Versions are faked."""

import builtins
import importlib
import platform
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from addp_mm.doctor import devices, openmmlab, packages, system

Usage = namedtuple('Usage', 'total used free')


def only(check) -> dict:
    """The findings of a check that are not 'ok', by subject."""
    return {finding.subject: finding for finding in check() if finding.status != 'ok'}


@pytest.fixture
def installed(monkeypatch):
    """Versions of the distributions that seem to be installed, and no others."""
    versions = {}
    for module in (packages, devices, openmmlab):
        monkeypatch.setattr(module, 'installed_version', versions.get)
    return versions


@pytest.mark.parametrize('version, works', [('3.9.2', False), ('3.10.0', True), ('3.14.8', True), ('3.15.0', False)])
def test_python(monkeypatch, version, works):
    monkeypatch.setattr(platform, 'python_version', lambda: version)
    monkeypatch.setattr(system, 'metadata', lambda name: {'Requires-Python': '>=3.10,<3.15'})
    found = only(system.check_system)
    assert (not found) is works
    if not works:
        assert found['Python'].status == 'error'
        assert 'python3.12 -m venv .venv' in found['Python'].remedy


def test_a_folder_that_is_not_writable_or_full(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not only(system.check_folders)
    monkeypatch.setattr(system.shutil, 'disk_usage', lambda folder: Usage(100 << 30, 99 << 30, 1 << 30))
    assert 'only 1.0 GiB left' in only(system.check_folders)['current folder'].text
    monkeypatch.setattr(system.os, 'access', lambda folder, mode: False)
    finding = only(system.check_folders)['current folder']
    assert f'{tmp_path} is not writable' in finding.text
    assert '--work-dir' in finding.remedy


def test_no_folder_for_temporary_files(monkeypatch):
    def none():
        raise FileNotFoundError('No usable temporary directory found in /tmp')

    monkeypatch.setattr(system.tempfile, 'gettempdir', none)
    assert 'export TMPDIR=' in only(system.check_folders)['temporary files'].remedy


@pytest.mark.parametrize('free, works', [(64 << 20, False), (8 << 30, True)])
def test_shared_memory_of_a_container(monkeypatch, tmp_path, free, works):
    monkeypatch.setattr(system.shutil, 'disk_usage', lambda folder: Usage(free, 0, free))
    found = only(lambda: system.check_shared_memory(str(tmp_path)))
    assert (not found) is works
    if not works:
        assert 'has 0.06 of 0.06 GiB free' in found['shared memory'].text
        assert '--shm-size' in found['shared memory'].remedy
        assert 'train_dataloader.num_workers=0' in found['shared memory'].remedy


def test_few_open_files(monkeypatch):
    resource = pytest.importorskip('resource')
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: (256, 4096))
    assert only(system.check_open_files)['open files'].remedy == 'ulimit -n 65536'
    monkeypatch.setattr(resource, 'getrlimit', lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not only(system.check_open_files)


def test_two_builds_of_opencv(installed):
    installed.update({'opencv-python': '5.0.0.93', 'opencv-python-headless': '5.0.0.93'})
    assert not only(packages.check_opencv)
    installed['opencv-python'] = '4.9.0.80'
    finding = only(packages.check_opencv)['opencv']
    assert 'opencv-python 4.9.0.80, opencv-python-headless 5.0.0.93 write into the same folder' in finding.text
    assert finding.remedy == (
        'pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless'
    )


@pytest.mark.parametrize(
    'versions, warns', [({'setuptools': '84.0'}, True), ({'setuptools': '84.0', 'onedl-mmengine': '0.10.12'}, False)]
)
def test_setuptools_without_pkg_resources(monkeypatch, installed, versions, warns):
    installed.update(versions)
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    found = only(packages.check_setuptools)
    assert bool(found) is warns
    if warns:
        assert found['setuptools'].remedy == "pip install 'setuptools<81'"


def test_a_package_that_was_compiled_for_another_numpy(monkeypatch):
    import_module = importlib.import_module

    def broken(name, *args):
        if name == 'pycocotools.mask':
            raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')
        return import_module(name, *args)

    monkeypatch.setattr(importlib, 'import_module', broken)
    found = only(packages.check_compiled)
    assert list(found) == ['pycocotools.mask']
    assert 'numpy.dtype size changed' in found['pycocotools.mask'].text
    assert found['pycocotools.mask'].remedy.startswith('pip install --force-reinstall')


@pytest.mark.parametrize(
    'versions, warns',
    [
        ({}, False),
        ({'transformers': '4.45.2', 'huggingface_hub': '0.36.0', 'mmpretrain': '1.2.0'}, False),
        ({'transformers': '4.45.2', 'huggingface_hub': '2.4.0', 'mmpretrain': '1.2.0'}, True),
        ({'transformers': '5.24.0', 'huggingface_hub': '2.4.0', 'mmpretrain': '1.2.0'}, False),
    ],
)
def test_transformers(installed, versions, warns):
    installed.update(versions)
    found = only(packages.check_transformers)
    assert bool(found) is warns
    if warns:
        assert found['transformers'].remedy == 'pip install --upgrade transformers'


@pytest.mark.parametrize('lite, status', [('2.1.0', 'warning'), ('2.0.1', 'error')])
def test_mmcv_beside_mmcv_lite(installed, lite, status):
    installed.update({'mmcv': '2.1.0', 'mmcv-lite': lite})
    (finding,) = openmmlab._shared_folders()
    assert finding.status == status
    assert f'mmcv-lite {lite} and mmcv 2.1.0 write into one folder' in finding.text
    assert finding.remedy == 'pip uninstall -y mmcv-lite mmcv && pip install mmcv-lite==2.1.0'


def test_models_that_cannot_be_imported(monkeypatch, installed):
    installed.update({'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmpretrain': '1.2.0'})
    import_module = importlib.import_module

    def broken(name, *args):
        if name == 'mmpretrain.models':
            raise ImportError('cannot import name of another package')
        return import_module(name, *args)

    monkeypatch.setattr(importlib, 'import_module', broken)
    finding = only(openmmlab.check_openmmlab)['mmpretrain']
    assert finding.status == 'error'
    assert finding.remedy.endswith('pip install --force-reinstall --no-deps mmpretrain')


@pytest.mark.parametrize(
    'versions, needs, status',
    [
        (('2.15.0+cu132', '0.29.2+cu132'), 'torch==2.15.0', None),
        (('2.15.0', '0.29.2'), 'torch (>=2.14)', None),
        (('2.6.0+cu124', '0.29.2+cu132'), 'torch==2.15.0', 'error'),
        (('2.15.0+cu132', '0.29.2+cpu'), 'torch==2.15.0', 'warning'),
    ],
)
def test_torch_and_torchvision_of_different_releases(monkeypatch, installed, versions, needs, status):
    installed['torchvision'] = versions[1]
    monkeypatch.setattr(devices, 'requires', lambda name: ['numpy', needs])
    found = only(lambda: devices._compare_torchvision(*versions))
    assert (found['torchvision'].status if found else None) == status
    if found:
        assert 'pip install --upgrade torch torchvision' in found['torchvision'].remedy


def test_torch_that_loads_the_libraries_of_another_cuda(monkeypatch):
    import_ = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == 'torch':
            raise OSError('libcudnn.so.9: undefined symbol')
        return import_(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', broken)
    monkeypatch.setenv('LD_LIBRARY_PATH', '/usr/local/cuda-11.8/lib64')
    assert only(devices.check_torch)['torch'].remedy.startswith('unset LD_LIBRARY_PATH')
    monkeypatch.delenv('LD_LIBRARY_PATH')
    assert only(devices.check_torch)['torch'].remedy.startswith('install torch and torchvision')


@pytest.mark.parametrize(
    'cuda, hidden, remedy',
    [
        (None, None, 'pip install --force-reinstall torch torchvision, with the --index-url for CUDA'),
        ('13.2', None, 'update the NVIDIA driver'),
        ('13.2', '', ''),
        ('13.2', '-1', ''),
    ],
)
def test_an_nvidia_gpu_that_torch_cannot_use(monkeypatch, tmp_path, cuda, hidden, remedy):
    monkeypatch.setattr(devices, 'NVIDIA', (str(tmp_path),))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if hidden is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    found = only(devices.check_gpus)
    assert found['GPU'].remedy.startswith(remedy) if remedy else not found


@pytest.mark.parametrize('architectures, works', [(['sm_80', 'sm_90'], True), (['sm_90', 'sm_100'], False), ([], True)])
def test_a_gpu_without_code_in_torch(monkeypatch, architectures, works):
    facts = SimpleNamespace(name='A GPU', total_memory=24 << 30, major=8, minor=6)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda index: facts)
    monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: architectures)
    found = only(devices.check_gpus)
    assert (not found) is works
    if not works:
        assert 'this torch has code for 100, 90 only' in found['GPU 0'].text


@pytest.mark.parametrize('kind, count, name', [('mps', 1, 'mps'), ('xpu', 2, '2 x Arc')])
def test_another_accelerator_is_named(monkeypatch, kind, count, name):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: True)
    monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, 'device_count', lambda: count)
    monkeypatch.setattr(torch.xpu, 'get_device_name', lambda: 'Arc')
    (finding,) = devices.check_gpus()
    assert finding.status == 'ok'
    assert finding.text == f'{name}, as --device {kind}; addp_mm was never run on this kind of device'
