# Copyright (c) addp_mm contributors. Apache-2.0.
"""Who may import whom inside the package, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_COMPONENTS = ('addp_mm.models.tokenizers', 'addp_mm.models.predictors', 'addp_mm.models.selfsup')
# (modules the rule binds, what they must not reach, what is allowed all the same)
RULES = [
    ('addp_mm', ('tools', 'tests', 'configs'), ()),
    (
        'addp_mm.models.backbones',
        ('addp_mm',),
        ('addp_mm.models.backbones', 'addp_mm.models.layers', 'addp_mm.registry', 'addp_mm.errors'),
    ),
    ('addp_mm.diffusion', ('addp_mm.models',), ()),
    ('addp_mm.layouts', ('addp_mm.models', 'addp_mm.apis'), ()),
    ('addp_mm.models.predictors', ('addp_mm.models.tokenizers',), ()),
    ('addp_mm.models.tokenizers', ('addp_mm.models.predictors',), ()),
    ('addp_mm.models.heads', _COMPONENTS, ()),
    ('addp_mm.models.losses', _COMPONENTS, ()),
    ('addp_mm.models.necks', _COMPONENTS, ()),
    ('addp_mm.models', ('addp_mm.generation', 'addp_mm.engine', 'addp_mm.evaluation'), ()),
]


def _inside(module: str, packages) -> bool:
    return any(module == package or module.startswith(f'{package}.') for package in packages)


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports_of(path: Path, root: Path, known: set[str]) -> set[str]:
    """Modules that the file imports, also relatively or with ``import_module('…')``."""
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


def violations(root: Path) -> list[str]:
    """Every breach of ``RULES`` under ``root/addp_mm``, also through modules in between."""
    files = {_module_name(path, root): path for path in sorted((root / 'addp_mm').rglob('*.py'))}
    direct = {name: imports_of(path, root, set(files)) for name, path in files.items()}
    breaches = []
    for bound, forbidden, allowed in RULES:
        for start in (name for name in files if _inside(name, [bound])):
            seen, queue = {start}, [(start, [start])]
            while queue:
                module, trail = queue.pop(0)
                for target in sorted(direct.get(module, ())):
                    if _inside(target, forbidden) and not _inside(target, allowed):
                        breaches.append(f'{bound} must not import {target}: {" -> ".join([*trail, target])}')
                    elif target in direct and target not in seen and not _passes_everything(target):
                        seen.add(target)
                        queue.append((target, [*trail, target]))
    return sorted(set(breaches))


def _passes_everything(module: str) -> bool:
    """All rooms may import the registry; what it imports itself is not counted as theirs."""
    return module in ('addp_mm', 'addp_mm.registry')


def test_package_keeps_the_import_rules():
    assert violations(ROOT) == []


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
