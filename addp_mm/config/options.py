# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options ``KEY=VALUE`` of the command line: each takes effect, or is refused."""

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from addp_mm.config.option_values import read_value, words
from addp_mm.config.unread_keys import check_is_read
from addp_mm.errors import ConfigError, first_few, suggest

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
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
}
#: The names among them that only other tools, or the config file itself, read.
_UNREAD = {'cfg', 'tta_model', 'tta_pipeline', 'vis_backends'}
#: Keys of dicts that mmengine reads key by key.
_PLAIN_KEYS = {
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
}
#: Words that arguments take instead of a number.
WORDS_FOR_NUMBERS = {'auto', 'dynamic', 'none', 'default', 'min', 'max', 'same', 'mean', 'sum'}
_DELETE = '_delete_'
_HINTS = {
    'resume': '. To continue a training, give --resume, or --resume PATH',
    'launcher': '. Give --launcher instead',
}
#: What an argument takes: names of ``str``, ``int``, ``float``, ``bool``, ``list``, ``dict``, and
#: ``any`` if it is not known.
Kinds = frozenset[str]


def runner_arguments() -> set[str]:
    """Top-level names of a config that Runner reads."""
    from mmengine.runner import Runner

    return set(inspect.signature(Runner.__init__).parameters) - {'self'} | _EXTRA_TOP_LEVEL


def split_options(options: Sequence[str]) -> list[tuple[str, str]]:
    """Turn ``['a.b=1', …]`` into pairs of key and text.

    Raises:
        ConfigError: An option is not ``KEY=VALUE``.
    """
    pairs = []
    for option in options:
        key, equals, text = option.partition('=')
        better = re.sub(r'\[(\d+)\]', r'.\1', key).strip()
        if not equals or not better:
            raise ConfigError(
                f'--cfg-options {option}: expected KEY=VALUE without spaces, e.g. train_dataloader.batch_size=8'
            )
        if key != better or not all(better.split('.')):
            better = '.'.join(filter(None, better.split('.')))
            raise ConfigError(f'--cfg-options {option}: {key!r} is not a key. Write {better}={text.strip()}')
        if text.startswith('='):
            raise ConfigError(f'--cfg-options {option}: one = is too many. Write {key}={text.lstrip("=")}')
        pairs.append((key, text))
    return pairs


def merge_options(
    cfg: Config,
    options: Sequence[str],
    kinds_of: Callable[[Config, str], Kinds | None] = lambda *_: None,
    also: Iterable[str] = (),
    read: Iterable[str] = (),
) -> None:
    """Merge the options of the command line into a config, one after the other.

    A dict is merged into a dict of the config, as in a config file: ``_delete_=True`` replaces it.

    Args:
        cfg: The config.
        options: ``['a.b=1', …]``.
        kinds_of: What the argument at a key takes; None if that is not known. Defaults to a
            function that knows nothing.
        also: More names that an error may suggest. Defaults to none.
        read: More names at the top level that the tool reads. Defaults to none.

    Raises:
        ConfigError: An option has no effect, or its value cannot be right.
    """
    pairs = split_options(options)
    _check_pairs(pairs)
    # deleting comes first, or it would also delete what other options set
    for key, text in sorted(pairs, key=lambda pair: not pair[0].endswith(f'.{_DELETE}')):
        present = present_value(cfg, key, also, read)
        try:
            value = _value(key, text, present, kinds_of(cfg, key))
        except ConfigError as error:
            raise ConfigError(f'--cfg-options {key}={text}: {error}') from error
        name, *rest = key.split('.')
        cfg[name] = _replaced(cfg.get(name), rest, value)


def present_value(cfg: Config, key: str, also: Iterable[str] = (), read: Iterable[str] = ()) -> Any:
    """The value at a key of an option; None if it is new there.

    A new key is accepted at the top level if Runner reads it. It is also accepted in a
    ``dict(type=…)``: :func:`addp_mm.checks.unknown_arguments.check_config` compares it with the
    arguments of the class later. Elsewhere a new key is refused if the same dict has a similar key.

    Args:
        cfg: The config.
        key: The key, such as ``'model.backbone.depth'``.
        also: More names that the error may suggest. Defaults to none.
        read: More names at the top level that the tool reads. Defaults to none.

    Raises:
        ConfigError: Nothing can be at this key, or nothing reads it.
    """
    known = runner_arguments()
    parts = key.split('.')
    names = {*known - _UNREAD, *read}
    check_is_read(cfg, key, names, {*names, *cfg.keys(), *also})
    node: Any = cfg
    for depth, part in enumerate(parts):
        path = '.'.join(parts[:depth])
        if isinstance(node, list | tuple):
            if not (part.isdecimal() and int(part) < len(node)):
                inside = [
                    f'{path}.{i}.{part}' for i, one in enumerate(node) if isinstance(one, Mapping) and part in one
                ]
                write = f'. Write {first_few(inside, 4)}' if inside else ''
                raise ConfigError(
                    f'--cfg-options {key}: {path} is a list of {len(node)}; {part!r} is not an index into it{write}'
                )
            node = node[int(part)]
        elif not isinstance(node, Mapping | Config):
            raise ConfigError(
                f'--cfg-options {key}: {path} is {node!r}, which contains no {part!r}. '
                f'Give the whole value, {path}=…{_as_dict(node, parts, depth)}'
            )
        elif part not in node:
            _check_new_key(key, path, part, node, parts[depth + 1 :])
            return None
        else:
            node = node[part]
    return node


def _check_new_key(key: str, path: str, part: str, node: Mapping, rest: Sequence[str]) -> None:
    if part == _DELETE:
        return
    if part not in _PLAIN_KEYS.get(path, (part,)):
        raise ConfigError(f'--cfg-options {key}: {path} takes {", ".join(_PLAIN_KEYS[path])}')
    similar = suggest(part, node, cutoff=0.75) if path and 'type' not in node else ''
    if similar:
        raise ConfigError(f'--cfg-options {key}: {path} has no {part!r}{similar}')
    if rest and rest[0].isdecimal():
        where = f'{path}.{part}' if path else part
        raise ConfigError(
            f'--cfg-options {key}: the config has no {where}, so it has no entry {rest[0]}. Give the whole list, '
            f"'{where}=[dict(type=…)]'"
        )
    if rest and rest[-1] == _DELETE:
        raise ConfigError(f'--cfg-options {key}: the config has no {".".join([path, part]).strip(".")} to delete')


def _as_dict(node: Any, parts: Sequence[str], depth: int) -> str:
    """An example of a dict, for a key of which the config says that it is off."""
    return f""", such as '{{"{parts[depth]}": …}}'""" if node is None and depth == len(parts) - 1 > 1 else ''


def _check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse an option that a later one would undo without a word."""
    for index, (key, text) in enumerate(pairs):
        for later, value in pairs[index + 1 :]:
            if key.startswith(f'{later}.') and not value.strip().startswith(('{', 'dict(')):
                raise ConfigError(
                    f'--cfg-options {key}={text}: the later {later}={value} replaces it. Give one of them'
                )


def _value(key: str, text: str, present: Any, kinds: Kinds | None) -> Any:
    """Read the value, as the argument takes it."""
    value = read_value(text, present)
    kinds = kinds or frozenset()
    if kinds and kinds <= {'str', 'NoneType'} and value is not None and not isinstance(value, str):
        return text
    if 'str' in kinds and not kinds & {'int', 'float', 'bool', 'any'} and isinstance(value, int | float):
        return text
    if value == text and ',' in text and 'list' in kinds:
        parts = words(text) if 'str' in kinds else read_value(text, [])
        return value if parts is None else parts
    whole = isinstance(value, float) and value.is_integer()
    if whole and 'float' not in kinds and (kinds & {'int'} or _is_number(present) and isinstance(present, int)):
        return int(value)
    wanted = _wanted(value, present, kinds)
    if wanted:
        now = '' if present is None else f', now {_short(present)}'
        raise ConfigError(f'{key} must be {wanted}{now}{_HINTS.get(key, "")}')
    return value


def _wanted(value: Any, present: Any, kinds: Kinds) -> str:
    """What the value must be instead; '' if it may be right."""
    unknown = not kinds or 'any' in kinds
    if value is None and _is_number(present) and not unknown and 'NoneType' not in kinds:
        return 'a number'
    if 'str' in kinds or not isinstance(value, str | int | float):
        return ''
    if isinstance(value, str):
        number = _is_number(present) if unknown else bool(kinds & {'int', 'float'})
        truth = isinstance(present, bool) if unknown else kinds <= {'bool', 'NoneType'}
        if number and value.lower() not in WORDS_FOR_NUMBERS:
            return 'a number'
        if truth:
            return 'True or False'
        if not value and isinstance(present, list | tuple):
            return 'None or []'
    if isinstance(present, Mapping) and 'type' in present:
        return 'a dict (for another class, set its .type)'
    return ''


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f'{text[:57]}…'


def _replaced(node: Any, parts: Sequence[str], value: Any) -> Any:
    """A copy of ``node`` with the value at the end of the path ``parts``.

    Only what is on the path is copied: a config may have the same dict in two places.
    """
    if parts:
        head, *rest = parts
        if head == _DELETE:
            return ConfigDict() if value is True else node
        if isinstance(node, list | tuple):
            items = list(node)
            items[int(head)] = _replaced(items[int(head)], rest, value)
            return type(node)(items)
        changed: Any = copy.copy(node) if isinstance(node, Mapping) else ConfigDict()
        changed[head] = _replaced(changed.get(head), rest, value)
        return changed
    if not isinstance(value, Mapping):
        return value
    given = dict(value)
    merged: Any = ConfigDict() if given.pop(_DELETE, False) or not isinstance(node, Mapping) else copy.copy(node)
    for name, inner in given.items():
        merged[name] = _replaced(merged.get(name), [], inner)
    return merged
