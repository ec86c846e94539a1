# Copyright (c) addp_mm contributors. Apache-2.0.
import inspect
import subprocess
import sys
import textwrap

import pytest

from addp_mm.compat.mmcv_ext import MMCVExtFinder, install_mmcv_ext

# loads one file of the package without the rest of `import addp_mm`
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location('finder', {path!r})
finder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finder)
"""


def run(code):
    path = inspect.getfile(MMCVExtFinder)
    code = LOAD.format(path=path) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_install_is_idempotent_and_last():
    install_mmcv_ext()
    install_mmcv_ext()
    ours = [finder for finder in sys.meta_path if isinstance(finder, MMCVExtFinder)]
    assert len(ours) == 1


def test_answers_one_name_only():
    finder = MMCVExtFinder()
    assert isinstance(finder.find_spec('mmcv._ext').loader, MMCVExtFinder)
    for name in ('mmcv', 'mmcv.ops', 'mmcv._ext.x', 'other._ext'):
        assert finder.find_spec(name) is None


def test_installing_imports_nothing():
    run("""
        finder.install_mmcv_ext()
        assert sys.meta_path[-1].__class__ is finder.MMCVExtFinder
        assert not {'torch', 'torchvision', 'mmcv', 'mmcv._ext'} & set(sys.modules)
    """)


def test_a_module_on_disk_wins(tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True')
    run(f"""
        finder.install_mmcv_ext()
        sys.path.insert(0, {str(tmp_path)!r})
        import mmcv._ext
        assert mmcv._ext.compiled and not hasattr(mmcv._ext, 'nms')
    """)


def test_a_finder_that_was_there_before_wins():
    run("""
        import importlib.abc, importlib.machinery, types

        class Compiled(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path=None, target=None):
                if name in ('mmcv', 'mmcv._ext'):
                    return importlib.machinery.ModuleSpec(name, self, is_package=name == 'mmcv')
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                module.compiled = True

        sys.meta_path.insert(0, Compiled())
        finder.install_mmcv_ext()
        import mmcv._ext
        assert mmcv._ext.compiled and not hasattr(mmcv._ext, 'nms')
    """)


def test_without_mmcv_nothing_appears():
    run("""
        finder.install_mmcv_ext()
        sys.modules['mmcv'] = None
        try:
            import mmcv._ext
        except ModuleNotFoundError:
            pass
        else:
            raise AssertionError
    """)


def test_unknown_op_imports_and_names_itself_when_called(ext):
    op = ext.no_such_operator
    assert callable(op)
    assert op.__name__ == 'no_such_operator'
    with pytest.raises(NotImplementedError, match='no_such_operator') as error:
        op(1, two=2)
    assert 'mmcv.readthedocs.io' in str(error.value)
    assert 'torch' in str(error.value)


def test_private_names_are_not_ops(ext):
    for name in ('__wrapped__', '__path__', '_nms'):
        assert not hasattr(ext, name)
    assert inspect.unwrap(ext) is ext


def test_every_op_has_the_arguments_that_mmcv_passes(ext):
    # names of arguments that mmcv.ops passes by keyword; a wrong name would only fail when the op
    # runs
    expected = {
        'nms': {'iou_threshold', 'offset'},
        'roi_align_forward': {
            'aligned_height',
            'aligned_width',
            'spatial_scale',
            'sampling_ratio',
            'pool_mode',
            'aligned',
        },
        'ms_deform_attn_forward': {'im2col_step'},
        'psamask_forward': {'psa_type', 'num_', 'half_h_mask', 'half_w_mask'},
    }
    for name, names in expected.items():
        assert names <= set(inspect.signature(getattr(ext, name)).parameters)


def test_version_report(mmcv_ops):
    assert 'addp_mm' in mmcv_ops.get_compiler_version()
    assert isinstance(mmcv_ops.get_compiling_cuda_version(), str)


@pytest.mark.slow
def test_the_whole_zoo_imports():
    code = (
        'import addp_mm, mmdet.models, mmseg.models, mmpretrain.models, mmcv.ops, mmcv._ext as ext;'
        'print(getattr(ext, "__file__", None) or ext.nms.__module__)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    provider = done.stdout.split()[-1]
    assert provider == 'addp_mm.compat.ops.nms' or provider.endswith(('.so', '.pyd'))
