# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a config file and the options of the command line. Errors suggest similar names."""

import argparse
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from addp_mm.config.paths import require_file
from addp_mm.config.shipped import SCHEME, config_path
from addp_mm.errors import ConfigError, suggest

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')
#: Top-level names of OpenMMLab configs besides the arguments of the Runner.
_EXTRA_TOP_LEVEL = {
    'default_scope',
    'custom_imports',
    'auto_scale_lr',
    'runner_type',
    'tta_model',
    'tta_pipeline',
    'vis_backends',
    'log_level',
    'cfg',
    'strategy',
    'compile',
}


def parse_options(options: list[str]) -> dict:
    """Turn ``['a.b=1', …]`` into a dict, by the rules of mmengine's ``DictAction``.

    Raises:
        ConfigError: An option has no ``=``.
    """
    for option in options:
        if '=' not in option:
            raise ConfigError(f'--cfg-options {option}: expected KEY=VALUE, e.g. train_dataloader.batch_size=8')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def runner_arguments() -> set[str]:
    """Top-level names of a config that Runner reads."""
    from mmengine.runner import Runner

    return set(inspect.signature(Runner.__init__).parameters) - {'self'} | _EXTRA_TOP_LEVEL


def check_options(cfg: Config, options: dict, also: Iterable[str] = ()) -> None:
    """Refuse an option whose key is not in the config.

    A new key is accepted at the top level if Runner reads it. It is also accepted in a
    ``dict(type=…)``: :func:`addp_mm.checks.unknown_arguments.check_config` compares it with the
    arguments of the class later. Elsewhere a new key is refused if the same dict has a similar key.

    Args:
        cfg: The config, before the options are merged.
        options: Values by key, ``{'a.b': 1}``.
        also: More names that the error may suggest. Defaults to none.

    Raises:
        ConfigError: A key is refused.
    """
    known = runner_arguments()
    for option in options:
        parts = option.split('.')
        if parts[0] not in cfg and parts[0] not in known:
            similar = suggest(parts[0], known | set(cfg.keys()) | set(also))
            raise ConfigError(f'--cfg-options {option}: the config has no {parts[0]!r}{similar}')
        node: Any = cfg
        for depth, part in enumerate(parts):
            path = '.'.join(parts[:depth])
            if isinstance(node, (list, tuple)):
                if not (part.isdigit() and int(part) < len(node)):
                    raise ConfigError(
                        f'--cfg-options {option}: {path} is a list of {len(node)}; {part!r} is not an index into it'
                    )
                node = node[int(part)]
                continue
            if not isinstance(node, (dict, Config)) or part not in node:
                similar = suggest(part, node, cutoff=0.75) if isinstance(node, dict) and 'type' not in node else ''
                if similar:
                    raise ConfigError(f'--cfg-options {option}: {path} has no {part!r}{similar}')
                break
            node = node[part]


def load_config(path: str, options: list[str] | None = None) -> Config:
    """Read a config and merge the options of the command line into it.

    Args:
        path: A file, or the name of a shipped config: ``addp_mm::NAME``, or ``NAME`` without its
            ``.py``.
        options: ``['a.b=1', …]``. Defaults to None: no options.

    Raises:
        ConfigError: The file does not exist, or the key of an option is not in the config.
        ShippedFileError: The package ships no config of that name.
    """
    if path.startswith(SCHEME) or (Path(path).suffix not in _SUFFIXES and not Path(path).exists()):
        path = config_path(path)
    require_file(path, 'config', _SUFFIXES)
    cfg = Config.fromfile(path)
    if options:
        parsed = parse_options(options)
        check_options(cfg, parsed)
        cfg.merge_from_dict(parsed)
    return cfg
