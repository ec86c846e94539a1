# Copyright (c) addp_mm contributors. Apache-2.0.
"""Configs, tools and the model index, wherever addp_mm runs from.

A wheel holds them in ``addp_mm/.mim``, where mim and mmengine look for them in a package; a
checkout and an editable install have them beside the package.
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from addp_mm.errors import UserError, first_few

SCHEME = 'addp_mm::'
_PACKAGE = Path(__file__).resolve().parents[1]


class ShippedFileError(UserError, FileNotFoundError):
    """No config or tool of that name is shipped; the message has the nearest ones."""


def shipped_root() -> Path:
    """Folder that holds ``configs``, ``tools`` and ``model-index.yml``.

    Raises:
        ShippedFileError: The package stands alone, as where only its folder was copied.
    """
    for folder in (_PACKAGE / '.mim', _PACKAGE.parent):
        # a folder `configs` alone proves nothing: other packages leave one in site-packages
        if (folder / 'model-index.yml').is_file() and (folder / 'configs').is_dir():
            return folder
    raise ShippedFileError(
        f'addp_mm in {_PACKAGE} came without its configs and tools: neither {_PACKAGE / ".mim"} nor '
        f'{_PACKAGE.parent} holds model-index.yml and configs/. Install a wheel, or the checkout '
        "with pip install -e '.[openmmlab]'."
    )


def config_path(name: str) -> str:
    """Path of a shipped config, to open it or to inherit from it.

    Any config can inherit by ``_base_ = __import__('addp_mm').config_path('…')``: mmengine
    evaluates that line, so nothing needs to be imported before.

    Args:
        name: The config's name, ``'addp-vit-nano-p8_ft_…'``, or its path below ``configs``,
            ``'cls/addp-vit-nano-p8_ft_….py'`` or ``'_base_/default_runtime.py'``; ``.py`` may be left out.

    Returns:
        An absolute path.

    Raises:
        ShippedFileError: There is no such config, or the name belongs to several and needs its
            folder.
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
            f'{name} is the name of several configs: {", ".join(same_name)}. Name one with its folder.'
        )
    names = {path.rpartition('/')[2]: path for path in configs}
    near = [names[n] for n in difflib.get_close_matches(name.rpartition('/')[2], names, n=3, cutoff=0.5)]
    raise ShippedFileError(
        f'addp_mm ships no config {name}; '
        + (f'did you mean {", ".join(near)}?' if near else f'there are {first_few(configs)}.')
    )


def tool_path(name: str) -> str:
    """Path of a shipped tool, such as ``'train.py'``, ``'tools/test.py'`` or ``'model_converters/export_weights.py'``.

    Raises:
        ShippedFileError: There is no such tool.
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
    near = difflib.get_close_matches(wanted, tools, n=3, cutoff=0.5)
    raise ShippedFileError(
        f'no script at {name}, and addp_mm ships no tool of that name; '
        + (f'did you mean {", ".join(near)}?' if near else f'it has {first_few(tools)}.')
    )


def metafiles() -> Iterator[Path]:
    """The files that ``model-index.yml`` puts together, one a folder of configs."""
    import yaml

    for path in yaml.safe_load((shipped_root() / 'model-index.yml').read_text(encoding='utf-8'))['Import']:
        yield shipped_root() / path


def find_model(name: str) -> tuple[str, str | None] | None:
    """Config and weights of a model in the index, by its name in any case or by an alias.

    Returns:
        The config's path and the weights' address (None where the index has none), or None where no
        model is called so.
    """
    import yaml

    for metafile in metafiles():
        for model in yaml.safe_load(metafile.read_text(encoding='utf-8'))['Models']:
            aliases = model.get('Alias') or []
            names = [model['Name'], *([aliases] if isinstance(aliases, str) else aliases)]
            if name.lower() in (known.lower() for known in names):
                weights = model.get('Weights')
                return str(shipped_root() / model['Config']), weights[0] if isinstance(weights, list) else weights
    return None


def _configs() -> dict[str, Path]:
    folder = shipped_root() / 'configs'
    return {path.relative_to(folder).with_suffix('').as_posix(): path for path in sorted(folder.rglob('*.py'))}
