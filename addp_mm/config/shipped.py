# Copyright (c) addp_mm contributors. Apache-2.0.
"""Paths of the shipped configs, tools and model index.

In a wheel they are in ``addp_mm/.mim``, where mim and mmengine look for them. In a checkout and an
editable install they are next to the package.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from addp_mm.errors import UserError, first_few, suggest

SCHEME = 'addp_mm::'
_PACKAGE = Path(__file__).resolve().parents[1]


class ShippedFileError(UserError, FileNotFoundError):
    """The package ships no config or tool of that name. The message suggests similar names."""


def shipped_root() -> Path:
    """Folder with ``configs``, ``tools`` and ``model-index.yml``.

    Raises:
        ShippedFileError: Only the folder of the package was copied.
    """
    for folder in (_PACKAGE / '.mim', _PACKAGE.parent):
        # a folder `configs` is not enough: other packages install one in site-packages
        if (folder / 'model-index.yml').is_file() and (folder / 'configs').is_dir():
            return folder
    raise ShippedFileError(
        f'addp_mm in {_PACKAGE} was installed without its configs and tools: neither {_PACKAGE / ".mim"} nor '
        f'{_PACKAGE.parent} has model-index.yml and configs/. Install a wheel, or the checkout '
        "with pip install -e '.[openmmlab]'."
    )


def config_path(name: str) -> str:
    """Path of a shipped config, to open it or to inherit from it.

    A config can inherit by ``_base_ = __import__('addp_mm').config_path('…')``. mmengine evaluates
    that line, so that addp_mm does not have to be imported before.

    Args:
        name: Name of the config, ``'addp-vit-nano-p8_ft_…'``, or its path in ``configs``,
            ``'cls/addp-vit-nano-p8_ft_….py'`` or ``'_base_/default_runtime.py'``. The ending
            ``.py`` may be left out.

    Returns:
        An absolute path.

    Raises:
        ShippedFileError: No config or several configs have that name.
    """
    name = name.removeprefix(SCHEME).removeprefix('configs/').removesuffix('.py')
    configs = _configs()
    if name in configs:
        return str(configs[name])
    same_name = [path for path in configs if path.rpartition('/')[2] == name]
    if len(same_name) == 1:
        return str(configs[same_name[0]])
    if same_name:
        raise ShippedFileError(
            f'{name} is the name of several configs: {", ".join(same_name)}. Give the name with its folder.'
        )
    names = {path.rpartition('/')[2]: path for path in configs if not path.startswith('_base_/')}
    begun = [path for known, path in names.items() if name and known.startswith(name)]
    hint = f'; did you mean {", ".join(begun[:3])}?' if begun else suggest(name, names.values(), cutoff=0.5)
    raise ShippedFileError(f'addp_mm ships no config {name}{hint or "."} The names are printed by: addp list')


def tool_path(name: str) -> str:
    """Path of a shipped tool.

    Args:
        name: A name or path, such as ``'train.py'``, ``'tools/test.py'`` or
            ``'model_converters/vit.py'``.

    Raises:
        ShippedFileError: No tool has that name.
    """
    folder = shipped_root() / 'tools'
    wanted = os.path.normpath(name.replace('\\', '/')).removeprefix('tools/')
    tools = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob('*.py'))
        if not path.name.startswith('_')
    }
    if wanted in tools:
        return str(tools[wanted])
    raise ShippedFileError(
        f'no script at {name}, and addp_mm ships no tool of that name'
        + (suggest(wanted, tools, 0.5) or f'; it has {first_few(tools)}.')
    )


def metafiles() -> Iterator[Path]:
    """The metafiles that ``model-index.yml`` imports, one for each folder of configs.

    None if the package came without its configs: it must not hide the models of other packages.
    """
    import yaml

    try:
        root = shipped_root()
    except ShippedFileError:
        return
    for path in yaml.safe_load((root / 'model-index.yml').read_text(encoding='utf-8'))['Import']:
        yield root / path


def find_model(name: str) -> tuple[str, str | None] | None:
    """Find a model in the index by its name, in upper or lower case.

    Returns:
        The config's path and the weights' address (None if the index has none), or None if no model
        has that name.
    """
    import yaml

    for metafile in metafiles():
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8'))['Models']:
            if name.lower() == model['Name'].lower():
                return str(shipped_root() / model['Config']), model.get('Weights')
    return None


def _configs() -> dict[str, Path]:
    folder = shipped_root() / 'configs'
    return {path.relative_to(folder).with_suffix('').as_posix(): path for path in sorted(folder.rglob('*.py'))}
