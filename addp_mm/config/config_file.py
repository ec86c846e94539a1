# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reading a config file and command line options, with errors that name the nearest thing that exists."""

import argparse
import difflib
import inspect
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config, DictAction

from addp_mm.config.shipped import SCHEME, config_path
from addp_mm.errors import UserError

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


class ConfigError(UserError, ValueError):
    """A mistake in a config, an option or a path, found before anything is built or written."""


def suggest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``'; did you mean a, b?'`` for the candidates nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, sorted({str(c) for c in candidates}), n=3, cutoff=cutoff)
    return f'; did you mean {", ".join(near)}?' if near else ''


def _near_files(path: Path, suffixes: tuple[str, ...]) -> str:
    """Name files whose base name is near that of ``path``, in its nearest folder that exists and below."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    if folder in (Path('.'), Path('/')) and path.parent != folder:
        pool = [*Path('configs').rglob('*'), *folder.glob('*')]
    else:
        pool = [*folder.rglob('*')] if folder not in (Path('.'), Path('/')) else [*folder.glob('*')]
    by_name: dict[str, Path] = {}
    for file in pool:
        if file.suffix in suffixes:
            by_name.setdefault(file.name, file)
    near = difflib.get_close_matches(path.name, by_name, n=3, cutoff=0.5)
    return f'; did you mean {", ".join(str(by_name[name]) for name in near)}?' if near else ''


def require_file(path: str, what: str, suffixes: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` with near file names unless ``path`` is a file."""
    file = Path(path)
    if file.is_dir():
        raise ConfigError(f'{what} {path} is a folder, not a file{_near_files(file / file.name, suffixes)}')
    if not file.is_file():
        raise ConfigError(f'{what} {path} does not exist{_near_files(file, suffixes)}')


def require_writable_folder(folder: str | Path, what: str) -> None:
    """Find that files can be written in ``folder``, or in a new one of that name. Nothing is left behind.

    Raises:
        ConfigError: They cannot be; ``what`` names the option.
    """
    path = Path(folder).absolute()
    try:
        path = next(parent for parent in (path, *path.parents) if parent.exists())
        # rights alone do not tell: nobody can write in /proc
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(f'{what}: no file can be written in {path} ({error.strerror}); name another place') from error


def require_writable(path: str | Path, what: str) -> None:
    """Find, before the work whose result goes there, that a file can be written at ``path``.

    Raises:
        ConfigError: It cannot be; ``what`` names the option.
    """
    if Path(path).is_dir():
        raise ConfigError(f'{what} {path} is a folder; name a file, e.g. {Path(path) / "result"}')
    require_writable_folder(Path(path).parent, f'{what} {path}')


def parse_options(options: list[str]) -> dict:
    """Turn ``['a.b=1', …]`` into a dict by the rules of mmengine's ``DictAction``.

    Raises:
        ConfigError: A part has no ``=``.
    """
    for option in options:
        if '=' not in option:
            raise ConfigError(f'--cfg-options {option}: expected KEY=VALUE, e.g. train_dataloader.batch_size=8')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


# Names that mm configs carry at their top level beside the arguments of the Runner.
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


def runner_arguments() -> set[str]:
    """Names that the Runner reads from the top level of a config."""
    from mmengine.runner import Runner

    return set(inspect.signature(Runner.__init__).parameters) - {'self'} | _EXTRA_TOP_LEVEL


def _descend(node, key: str):
    if isinstance(node, (list, tuple)) and key.isdigit() and int(key) < len(node):
        return node[int(key)]
    return node[key] if isinstance(node, dict) and key in node else None


def check_options(cfg: Config, options: dict) -> None:
    """Refuse an option that names nothing in ``cfg``.

    A new key is accepted at the top level where the Runner knows it, and below a ``dict(type=…)``,
    whose arguments :func:`addp_mm.checks.unknown_arguments.check_config` compares with the class
    afterwards. Everywhere else a new key is refused where one much like it stands beside it.
    """
    known = runner_arguments()
    for option in options:
        parts = option.split('.')
        if parts[0] not in cfg and parts[0] not in known:
            raise ConfigError(
                f'--cfg-options {option}: the config has no {parts[0]!r}{suggest(parts[0], known | set(cfg.keys()))}'
            )
        node = cfg._cfg_dict
        for depth, part in enumerate(parts):
            here = '.'.join(parts[:depth])
            if isinstance(node, (list, tuple)) and _descend(node, part) is None:
                raise ConfigError(
                    f'--cfg-options {option}: {here} is a list of {len(node)}; {part!r} is not an index into it'
                )
            if isinstance(node, dict) and part not in node and depth and 'type' not in node:
                hint = suggest(part, node, cutoff=0.75)
                if hint:
                    raise ConfigError(f'--cfg-options {option}: {here} has no {part!r}{hint}')
            node = _descend(node, part)
            if node is None:
                break


def load_config(path: str, options: list[str] | None = None) -> Config:
    """Read the config at ``path`` and merge command line ``options`` into it.

    Args:
        path: A file, or the name of a shipped config: ``addp_mm::NAME``, or ``NAME`` without its ``.py``.
        options: ``['a.b=1', …]``.

    Raises:
        ConfigError: The file does not exist (near file names are given) or an option names nothing
            in it.
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
