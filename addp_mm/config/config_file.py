# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a config file, and merge the options of the command line into it."""

from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from addp_mm.config.options import Kinds, merge_options
from addp_mm.config.paths import require_file
from addp_mm.config.reading import CONFIG_SUFFIXES, import_custom_modules, read_config
from addp_mm.config.shipped import SCHEME, config_path
from addp_mm.config.stock import is_stock_name, stock_path
from addp_mm.errors import ConfigError

__all__ = ['ConfigError', 'load_config']


def load_config(
    path: str, options: list[str] | None = None, kinds_of: Callable[[Config, str], Kinds | None] = lambda *_: None
) -> Config:
    """Read a config and merge the options of the command line into it.

    Args:
        path: A file, or the name of a shipped config: ``addp_mm::NAME``, or ``NAME`` without its
            ``.py``; or ``mmdet::NAME``, ``mmseg::NAME`` or ``mmpretrain::NAME``.
        options: ``['a.b=1', …]``. Defaults to None: no options.
        kinds_of: As in :func:`addp_mm.config.options.merge_options`. Defaults to a function that
            knows nothing.

    Raises:
        ConfigError: The file does not exist or has a mistake, or an option has no effect.
        ShippedFileError: The package ships no config of that name.
    """
    if is_stock_name(path):
        path = stock_path(path)
    elif path.startswith(SCHEME) or (Path(path).suffix not in CONFIG_SUFFIXES and not Path(path).exists()):
        path = config_path(path)
    require_file(path, 'config', CONFIG_SUFFIXES)
    cfg = read_config(path)
    if options:
        merge_options(cfg, options, kinds_of)
        if any(option.startswith('custom_imports') for option in options):
            import_custom_modules(cfg, path)
    return cfg
