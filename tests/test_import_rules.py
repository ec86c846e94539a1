# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rules of imports inside the package, checked on the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_FROZEN_PARTS = ('addp_mm.models.tokenizers', 'addp_mm.models.predictors', 'addp_mm.models.selfsup')
# tests, configs and scripts; a script imports another by its file name
_OUTSIDE = ('tools', 'tests', 'helpers', 'configs', 'examples')
# (modules that the rule binds, what they must not import, exceptions)
RULES = [
    ('addp_mm', _OUTSIDE, ()),
    (
        'addp_mm.models.backbones',
        ('addp_mm',),
        # imagenet holds two tuples of numbers
        ('addp_mm.models.backbones', 'addp_mm.models.layers', 'addp_mm.registry', 'addp_mm.errors', 'addp_mm.imagenet'),
    ),
    ('addp_mm.diffusion', ('addp_mm.models',), ()),
    ('addp_mm.datasets', ('addp_mm.engine', 'addp_mm.checks'), ()),
    ('addp_mm.layouts', ('addp_mm.models', 'addp_mm.apis'), ()),
    ('addp_mm.models.predictors', ('addp_mm.models.tokenizers',), ()),
    ('addp_mm.models.tokenizers', ('addp_mm.models.predictors',), ()),
    ('addp_mm.models.heads', _FROZEN_PARTS, ()),
    ('addp_mm.models.losses', _FROZEN_PARTS, ()),
    ('addp_mm.models.necks', _FROZEN_PARTS, ()),
    ('addp_mm.models', ('addp_mm.generation', 'addp_mm.engine', 'addp_mm.evaluation', 'addp_mm.checks'), ()),
    ('addp_mm.datasets', ('addp_mm.engine', 'addp_mm.checks'), ()),
    ('addp_mm.compat', ('addp_mm',), ('addp_mm.compat', 'addp_mm.errors')),
]
# The registry imports the packages below it by name when it looks for a class.
_LAZY = ('addp_mm', 'addp_mm.registry')


def _inside(module: str, packages) -> bool:
    return any(module == package or module.startswith(f'{package}.') for package in packages)


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(path: Path, root: Path, known: set[str]) -> set[str]:
    """Modules that a file imports, in functions, relatively or with ``import_module('…')`` too."""
    name = _module_name(path, root)
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                anchor = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*anchor, *([node.module] if node.module else [])])
            members = {f'{base}.{alias.name}' for alias in node.names}
            submodules = members & known
            found |= submodules if len(submodules) == len(members) else {base} | submodules
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            if called in ('import_module', '__import__') and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Imports of each file under ``root/addp_mm``."""
    files = {_module_name(path, root): path for path in sorted((root / 'addp_mm').rglob('*.py'))}
    return {name: imports_of(path, root, set(files)) for name, path in files.items()}


def violations(root: Path) -> list[str]:
    """Every violation of ``RULES`` under ``root/addp_mm``, also through other modules."""
    graph = import_graph(root)
    scripts = {path.stem for folder in ('.dev', 'tools', 'examples') for path in (root / folder).rglob('*.py')}
    breaches = []
    for bound, forbidden, allowed in RULES:
        forbidden = (*forbidden, *scripts) if forbidden == _OUTSIDE else forbidden
        for start in (name for name in graph if _inside(name, [bound])):
            seen, queue = {start}, [(start, [start])]
            while queue:
                module, trail = queue.pop(0)
                for target in sorted(graph.get(module, ())):
                    if _inside(target, forbidden) and not _inside(target, allowed):
                        breaches.append(f'{bound} must not import {target}: {" -> ".join([*trail, target])}')
                    elif target in graph and target not in seen and target not in _LAZY:
                        seen.add(target)
                        queue.append((target, [*trail, target]))
    return sorted(set(breaches))


def circle(root: Path) -> list[str]:
    """The first files found that import each other in a circle; [] if there are none."""
    graph = {name: sorted(found - {name}) for name, found in import_graph(root).items() if name not in _LAZY}
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module not in graph or module in finished:
            return []
        for target in graph[module]:
            found = visit(target, [*trail, module])
            if found:
                return found
        finished.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in graph)), [])


def test_package_keeps_the_import_rules():
    assert violations(ROOT) == []


def test_no_files_import_each_other_in_a_circle():
    assert circle(ROOT) == []


@pytest.mark.parametrize('line', ['from addp_mm.b import g', 'def f():\n    from .b import g', 'from addp_mm import b'])
def test_a_circle_is_found(tmp_path, line):
    package = tmp_path / 'addp_mm'
    package.mkdir()
    (package / 'a.py').write_text(line)
    (package / 'b.py').write_text('import addp_mm.c')
    (package / 'c.py').touch()
    assert circle(tmp_path) == []
    (package / 'c.py').write_text('from . import a')
    assert circle(tmp_path) == ['addp_mm.a', 'addp_mm.b', 'addp_mm.c', 'addp_mm.a']
    (package / 'c.py').write_text('from addp_mm.registry import MODELS')
    (package / 'registry.py').write_text('from addp_mm import a')
    assert circle(tmp_path) == []


@pytest.mark.parametrize(
    'module, line',
    [
        ('addp_mm/apis/load', 'from tools import train'),
        ('addp_mm/models/backbones/vit', 'from addp_mm.models.tokenizers import VQTokenizer'),
        ('addp_mm/models/backbones/vit', 'from addp_mm.diffusion.token_space import TokenSpace'),
        ('addp_mm/models/backbones/vit', 'import addp_mm.diffusion.schedule'),
        ('addp_mm/models/backbones/vit', 'from ..necks import fpn'),
        ('addp_mm/diffusion/schedule', 'def f():\n    from addp_mm import models'),
        ('addp_mm/models/predictors/masked', 'from ..tokenizers.vq import VQTokenizer'),
        ('addp_mm/models/tokenizers/vq', "import importlib\nimportlib.import_module('addp_mm.models.predictors')"),
        ('addp_mm/models/heads/token', 'from addp_mm.models.selfsup import ADDP'),
        ('addp_mm/models/losses/ce', 'from addp_mm.models.predictors import MaskedTokenPredictor'),
        ('addp_mm/models/necks/decoder', 'from addp_mm.models.tokenizers import VQTokenizer'),
        ('addp_mm/models/selfsup/addp', 'from addp_mm.engine.hooks import PreflightHook'),
        ('addp_mm/models/pretrained', 'from addp_mm.checks import weights'),
        ('addp_mm/datasets/views/two', 'from addp_mm.engine import hooks'),
        ('addp_mm/datasets/views/two', 'from ...checks.datasets import check_datasets'),
        ('addp_mm/compat/versions', 'from addp_mm.config.config_file import ConfigError'),
        ('addp_mm/apis/load', 'import model_zoo'),
    ],
)
def test_a_breach_is_found(tmp_path, module, line):
    for name in ('models', 'models/tokenizers', 'models/predictors', 'models/necks', 'models/heads', 'diffusion'):
        folder = tmp_path / 'addp_mm' / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / '__init__.py').touch()
    path = tmp_path / f'{module}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (tmp_path / '.dev').mkdir()
    (tmp_path / '.dev/model_zoo.py').touch()
    assert violations(tmp_path) == []
    path.write_text(line)
    assert len(violations(tmp_path)) >= 1


def test_a_breach_through_another_module_is_found(tmp_path):
    layers, backbones = tmp_path / 'addp_mm/models/layers', tmp_path / 'addp_mm/models/backbones'
    layers.mkdir(parents=True)
    backbones.mkdir(parents=True)
    (layers / 'block.py').write_text('from addp_mm.diffusion.token_space import TokenSpace')
    (backbones / 'vit.py').write_text('from addp_mm.models.layers import block')
    assert violations(tmp_path) == [
        'addp_mm.models.backbones must not import addp_mm.diffusion.token_space: addp_mm.models.backbones.vit -> '
        'addp_mm.models.layers.block -> addp_mm.diffusion.token_space'
    ]


def test_importing_the_package_imports_no_task_package():
    code = 'import sys, addp_mm; print([m for m in ("mmdet", "mmseg", "mmpretrain") if m in sys.modules])'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'
