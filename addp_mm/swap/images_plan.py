# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of how images are padded and normalised."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from addp_mm.config.type_names import type_name
from addp_mm.swap.plan import Change
from addp_mm.swap.zoo_entry import ZooEntry

# Size for which positions are stored if the config does not say one.
_USUAL_SIZE = {'det': 1024, 'seg': 512, 'cls': 224}


def preprocessor_of(cfg: Config) -> tuple[str, Mapping[str, Any]]:
    """Key and config of the data preprocessor: in the model, else at the top level."""
    in_model = cfg.model.get('data_preprocessor')
    if isinstance(in_model, Mapping):
        return 'model.data_preprocessor', in_model
    return 'data_preprocessor', cfg.get('data_preprocessor') or {}


def colour_changes(cfg: Config, entry: ZooEntry, task: str) -> list[Change]:
    """Mean, standard deviation and order of the colours with which the backbone was trained."""
    key, current = preprocessor_of(cfg)
    mean, std = entry.colours
    if len(current.get('mean') or mean) != len(mean):  # images of other channels than colours
        return []
    order = 'to_rgb' if task == 'cls' else 'bgr_to_rgb'
    numbers = f'mean and standard deviation of the images with which {entry.name} was trained'
    wanted: dict[str, tuple[Any, str]] = {
        'mean': (list(mean), numbers),
        'std': (list(std), numbers),
        order: (True, f'{entry.name} takes red, green and blue in this order'),
    }
    if current.get('rgb_to_bgr'):
        wanted['rgb_to_bgr'] = (False, f'{entry.name} takes red, green and blue in this order')
    return [
        Change(f'{key}.{name}', value, reason)
        for name, (value, reason) in wanted.items()
        if not _same(current.get(name), value)
    ]


def _same(current: Any, value: Any) -> bool:
    if isinstance(value, list):
        given = list(current) if isinstance(current, list | tuple) else []
        return len(given) == len(value) and all(abs(a - b) < 0.01 for a, b in zip(given, value, strict=True))
    return current is value


def square_side(cfg: Config, task: str) -> int:
    """Side of a square with as many pixels as the usual images, for which positions are stored.

    These are the crops of a segmentor, else the images of the validation. ``training_size`` of
    :mod:`addp_mm.analysis.batches` has the height and width of the images of the training.
    """
    _, preprocessor = preprocessor_of(cfg)
    if task == 'seg' and preprocessor.get('size'):
        return _side(preprocessor['size'])
    loaders = [cfg.get(name) for name in ('val_dataloader', 'test_dataloader', 'train_dataloader')]
    for loader in loaders:
        for name in ('crop_size', 'scale', 'img_scale'):
            found = next(_values(loader, name), None)
            if found is not None:
                return _side(found)
    return _USUAL_SIZE[task]


def _values(node: Any, name: str) -> Iterator[Any]:
    """Sizes that transforms have under a name, those of the last transforms first."""
    children: Sequence = ()
    if isinstance(node, Mapping):
        value = node.get(name)
        if isinstance(value, int) or (isinstance(value, list | tuple) and value and isinstance(value[0], int)):
            yield value
        children = tuple(node.values())
    elif isinstance(node, list | tuple):
        children = node[::-1]
    for child in children:
        yield from _values(child, name)


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else round(math.sqrt(size[0] * size[-1]))


def pad_changes(
    cfg: Config, task: str, divisor: int, coarsest: float, patch: int, rounds: bool = False
) -> list[Change]:
    """Pad images so that maps of all strides cover them.

    Args:
        cfg: The whole config.
        task: 'det' or 'seg'.
        divisor: Both sides must be multiples of it.
        coarsest: The coarsest stride of the heads.
        patch: Side of a plain transformer's patches; 1 of other backbones, which take any size.
        rounds: Whether the neck rounds sides, so that images of another size than the windows of
            the test must be padded too. Defaults to False.
    """
    if patch == 1 and not rounds:
        return []
    if task == 'det':
        return _pad_detector(cfg, divisor, coarsest)
    return _pad_segmentor(cfg, divisor, divisor if rounds else patch, rounds)


def _pad_detector(cfg: Config, divisor: int, coarsest: float) -> list[Change]:
    key, current = preprocessor_of(cfg)
    old = current.get('pad_size_divisor', 1)
    if old % divisor == 0:
        return []
    # images of 14-px patches are padded to 28 where those of 16-px patches are padded to 32
    new = (
        math.lcm(int(min(coarsest, 4 * divisor)), divisor) if old < divisor else max(divisor, old // divisor * divisor)
    )
    reason = f'both sides of the images must be multiples of {divisor} for the patches and the neck'
    return [Change(f'{key}.pad_size_divisor', new, reason)]


def _pad_segmentor(cfg: Config, divisor: int, patch: int, rounds: bool) -> list[Change]:
    key, current = preprocessor_of(cfg)
    changes = []
    size = current.get('size')
    if size is not None and any(side % patch for side in size):
        reason = f'crops are padded to multiples of {patch}, the side of a patch; the padding is ignored in the loss'
        changes.append(Change(f'{key}.size', _multiples(size, patch), reason))
    test_cfg = cfg.model.get('test_cfg') or {}
    window = test_cfg.get('crop_size')
    if test_cfg.get('mode') == 'slide' and window and any(side % patch for side in window):
        reason = f'windows of the test are multiples of {patch}, the side of a patch'
        changes.append(Change('model.test_cfg.crop_size', _multiples(window, patch), reason))
    old = (current.get('test_cfg') or {}).get('size_divisor', 1)
    if (rounds or test_cfg.get('mode') != 'slide') and old % divisor:
        reason = f'images of the test are padded to multiples of {divisor} and the padding is cut off the result'
        changes.append(Change(f'{key}.test_cfg', dict(size_divisor=divisor), reason))
    return changes


def _multiples(size: Sequence[int], patch: int) -> tuple[int, ...]:
    return tuple(math.ceil(side / patch) * patch for side in size)


def resizes_batches(cfg: Config) -> bool:
    """Whether images are padded or resized again after the data preprocessor's own padding."""
    _, current = preprocessor_of(cfg)
    augments = current.get('batch_augments') or ()
    return any(type_name(one.get('type')) in ('BatchFixedSizePad', 'BatchSyncRandomResize') for one in augments)
