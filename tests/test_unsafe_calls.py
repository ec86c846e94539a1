# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls that could run code of a file, or read one without a limit, checked on the source.

Ruff's rules S find the calls that are unsafe whatever they get. These are the others.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SOURCES = ('addp_mm', 'tools', 'configs', '.dev', 'docs', 'examples')
_ARCHIVES = ('extract', 'extractall', 'unpack_archive')
# dotted name: where the call is allowed
FORBIDDEN = {
    'torch.load': ('addp_mm/checkpoints/reading.py',),
    'torch.jit.load': (),
    'torch.hub.load': (),
    'torch.hub.load_state_dict_from_url': (),
    'torch.hub.download_url_to_file': (),
    'torch.package.PackageImporter': (),
    'mmengine.load': (),
    'mmengine.fileio.load': (),
    'mmcv.imread': (),
    'pickle.load': (),
    'pickle.loads': (),
    'pickle.Unpickler': ('addp_mm/safe_files/pickles.py',),
    'cloudpickle.load': (),
    'cloudpickle.loads': (),
    'dill.load': (),
    'dill.loads': (),
    'joblib.load': (),
    'shelve.open': (),
    'marshal.load': (),
    'marshal.loads': (),
    'pandas.read_pickle': (),
    'yaml.load': ('addp_mm/config/data_config.py',),  # with our loader of data
    'yaml.unsafe_load': (),
    'yaml.full_load': (),
    'os.system': (),
    'os.popen': (),
    'urllib.request.urlopen': (),
    'urllib.request.urlretrieve': (),
    'xml.etree.ElementTree.parse': (),
    'xml.etree.ElementTree.fromstring': (),
    'gzip.decompress': (),
    'zlib.decompress': (),
    'bz2.decompress': (),
    'lzma.decompress': (),
    'cv2.imread': (),
    'cv2.imdecode': ('addp_mm/datasets/readers/read_image.py', 'tools/benchmarks/jpeg_decoders.py'),
}
# keyword argument of any call: the forbidden value
FORBIDDEN_ARGUMENTS = {'weights_only': False, 'allow_pickle': True, 'shell': True, 'trust_remote_code': True}
_LIMIT_LIFTED = ('tools/dataset_converters/image_tiles.py',)


def found_in(path: Path, name: str) -> Iterator[str]:
    """The unsafe calls of a file, as 'line: what'."""
    tree = ast.parse(path.read_text())
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and name not in _LIMIT_LIFTED:
            targets = [getattr(target, 'attr', '') for target in node.targets]
            if 'MAX_IMAGE_PIXELS' in targets:
                yield f'{node.lineno}: MAX_IMAGE_PIXELS'
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        if name not in FORBIDDEN.get(called, (name,)):
            yield f'{node.lineno}: {called}'
        arguments = {keyword.arg: keyword.value for keyword in node.keywords}
        for argument, value in FORBIDDEN_ARGUMENTS.items():
            if getattr(arguments.get(argument), 'value', None) is value:
                yield f'{node.lineno}: {argument}={value}'
        if called == 'numpy.load' and getattr(arguments.get('allow_pickle'), 'value', None) is not False:
            yield f'{node.lineno}: numpy.load without allow_pickle=False'
        if '.' in called and not called.startswith('addp_mm.') and called.rpartition('.')[2] in _ARCHIVES:
            yield f'{node.lineno}: {called}'


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split('.')[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f'{node.module}.{alias.name}'


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f'{_dotted(node.value, names)}.{node.attr}'
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else '?'


def test_the_source_has_no_unsafe_calls():
    files = [file for folder in _SOURCES for file in sorted((ROOT / folder).rglob('*.py'))]
    assert len(files) > 800
    faults = {str(file.relative_to(ROOT)): list(found_in(file, str(file.relative_to(ROOT)))) for file in files}
    assert {name: found for name, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    'source, found',
    [
        *((f'import {name.rpartition(".")[0]}\n{name}(x)', name) for name in FORBIDDEN),
        ('import numpy as np\nnp.load(x)', 'numpy.load without allow_pickle=False'),
        ('import numpy as np\nnp.load(x, allow_pickle=flag)', 'numpy.load without allow_pickle=False'),
        ('from numpy import load\nload(x, allow_pickle=True)', 'allow_pickle=True'),
        ('from torch import load as read\nread(x)', 'torch.load'),
        ('def f():\n    import torch as t\n    t.load(x)', 'torch.load'),
        ('from mmengine.fileio import load\nload("x.pkl")', 'mmengine.fileio.load'),
        ('read(x, weights_only=False)', 'weights_only=False'),
        ('subprocess.run(x, shell=True)', 'shell=True'),
        ('from_pretrained(x, trust_remote_code=True)', 'trust_remote_code=True'),
        ('tarfile.open(x).extractall(y)', '?.extractall'),
        ('archive.extract(y)', 'archive.extract'),
        ('shutil.unpack_archive(x)', 'shutil.unpack_archive'),
        ('from PIL import Image\nImage.MAX_IMAGE_PIXELS = None', 'MAX_IMAGE_PIXELS'),
    ],
)
def test_an_unsafe_call_is_found(tmp_path, source, found):
    (tmp_path / 'x.py').write_text(source)
    assert found in [fault.partition(': ')[2] for fault in found_in(tmp_path / 'x.py', 'addp_mm/x.py')]


def test_safe_calls_are_allowed(tmp_path):
    (tmp_path / 'x.py').write_text(
        'import numpy as np\nimport re\nimport yaml\nnp.load(x, allow_pickle=False)\nyaml.safe_load(x)\n'
        'json.load(x)\nmodel.load(x)\nsubprocess.run(x, shell=False)\nmodel.eval()\n'
    )
    assert list(found_in(tmp_path / 'x.py', 'addp_mm/x.py')) == []
