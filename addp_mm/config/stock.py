# Copyright (c) addp_mm contributors. Apache-2.0.
"""Config files of mmdet, mmsegmentation and mmpretrain by name: ``mmdet::faster_rcnn/….py``."""

from pathlib import Path

from addp_mm.compat.packages import get_installed_path, is_installed
from addp_mm.errors import ConfigError, suggest

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')


def is_stock_name(name: str) -> bool:
    """Whether ``name`` begins with one of the three packages, as in ``mmdet::…``."""
    return name.partition('::')[0] in PACKAGES and '::' in name


def stock_folder(package: str) -> Path:
    """Folder with the configs of an installed package.

    Raises:
        ConfigError: The package is not installed, or was installed without its configs.
    """
    if not is_installed(package):
        raise ConfigError(f"{package} is not installed: pip install 'addp_mm[openmmlab]'")
    folder = Path(get_installed_path(package))
    # a checkout has them beside the package
    found = next((one for one in (folder / '.mim/configs', folder.parent / 'configs') if one.is_dir()), None)
    if found is None:
        raise ConfigError(f'{package} in {folder} was installed without its configs')
    return found


def stock_name(name: str) -> str:
    """The complete name of a package's config, which ``_base_`` accepts: ``mmdet::folder/file.py``.

    Args:
        name: Such a name. The folder, if no other has a config of that name, and the ending ``.py``
            may be left out.

    Raises:
        ConfigError: The package is not installed, or has no such config. The message suggests
            similar names.
    """
    package, _, wanted = name.partition('::')
    wanted = wanted.removeprefix('configs/').removesuffix('.py')
    folder = stock_folder(package)
    paths = [path.relative_to(folder).with_suffix('').as_posix() for path in sorted(folder.rglob('*.py'))]
    same_name = [path for path in paths if path.rpartition('/')[2] == wanted]
    if wanted in paths or len(same_name) == 1:
        return f'{package}::{wanted if wanted in paths else same_name[0]}.py'
    if same_name:
        raise ConfigError(f'{name} is the name of several configs: {", ".join(same_name)}. Give it with its folder')
    near = suggest(wanted, paths) or suggest(wanted.rpartition('/')[2], {path.rpartition('/')[2] for path in paths})
    raise ConfigError(f'{package} has no config {wanted or "without a name"}{near or f". They are in {folder}"}')


def stock_path(name: str) -> str:
    """Path of the file of a package's config; see :func:`stock_name`."""
    package, _, file = stock_name(name).partition('::')
    return str(stock_folder(package) / file)
