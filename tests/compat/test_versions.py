# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.compat.versions import check_packages

ORIGINALS = {
    'mmengine': '0.10.7',
    'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmpretrain': '1.2.0',
}
FORKS = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
}


def check(installed, importable=('mmengine', 'mmcv')):
    check_packages(installed.get, lambda name: name in importable)


@pytest.mark.parametrize(
    'installed',
    [
        ORIGINALS,
        FORKS,
        {'mmengine': '0.10.7'},
        {'mmengine': '0.10.7', 'mmcv': '2.2.0'},
        {'mmengine': '0.10.7', 'mmcv': '2.2.0', 'mmpretrain': '1.2.0'},
        {'mmengine-lite': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'},
    ],
)
def test_working_sets_pass(installed):
    check(installed)


def test_source_checkout_without_metadata_passes():
    check({})


def test_missing_mmengine_is_an_error_with_the_command_to_install_it():
    with pytest.raises(ImportError, match=r"pip install 'addp_mm\[openmmlab\]'"):
        check({}, importable=())


def test_mmdet_with_mmcv_2_2():
    with pytest.raises(ImportError) as error:
        check({**ORIGINALS, 'mmcv-lite': '2.2.0'})
    text = str(error.value)
    assert 'mmdet 3.3.0' in text
    assert 'mmsegmentation 1.2.2' in text
    assert 'mmpretrain' not in text
    assert 'mmcv-lite 2.2.0 is installed' in text
    assert 'pip install mmcv-lite==2.1.0' in text
    assert 'uninstall' not in text


def test_compiled_mmcv_is_uninstalled_before_lite_takes_its_folder():
    with pytest.raises(ImportError, match='pip uninstall -y mmcv\n    pip install mmcv-lite==2.1.0'):
        check({'mmengine': '0.10.7', 'mmdet': '3.3.0', 'mmcv': '2.2.0'})


def test_mmdet_without_mmcv():
    with pytest.raises(ImportError, match='mmdet 3.3.0 needs mmcv, which is not installed'):
        check({'mmengine': '0.10.7', 'mmdet': '3.3.0'}, importable=('mmengine',))


def test_both_families():
    with pytest.raises(ImportError) as error:
        check({**ORIGINALS, 'onedl-mmcv': '2.3.6'})
    assert 'installed both' in str(error.value)
    assert str(error.value).startswith('mmcv:')
    assert 'pip uninstall -y mmengine mmcv-lite mmdet mmsegmentation mmpretrain onedl-mmcv' in str(error.value)


@pytest.mark.parametrize('name, version', [('mmengine', '0.7.1'), ('mmdet', '2.28.0'), ('mmpretrain', '1.0.0')])
def test_unsupported_version(name, version):
    with pytest.raises(ImportError, match=rf"{name} {version} is not supported(.|\n)*pip install '{name}>="):
        check({**ORIGINALS, name: version})


def test_installed_packages_pass():
    check_packages()
