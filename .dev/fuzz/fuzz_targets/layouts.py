# Copyright (c) addp_mm contributors. Apache-2.0.
"""State dicts of other projects, with changed names and shapes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from addp_mm.layouts import LAYOUTS, advice_on_prefix, find_layout, held_by
from addp_mm.layouts.published import published_settings
from addp_mm.layouts.to_timm import to_timm
from fuzz_targets.target import Reader, Target

_LARGEST = 24  # of a made-up dimension


@cache
def _bases() -> list[dict[str, list[int]]]:
    """Shapes of a tiny model in each layout."""
    return list(json.loads(Path(__file__).with_name('shapes.json').read_text()).values())


def changed_state_dict(reader: Reader) -> dict[str, Tensor]:
    """A state dict of a known layout, after some changes of names, shapes and types."""
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in reader.choice(_bases()).items()}
    while reader and tensors:
        name = reader.choice(list(tensors))
        match reader.number(6):
            case 0:
                del tensors[name]
            case 1:
                shape = [reader.number(_LARGEST) for _ in range(reader.number(5))]
                tensors[name] = torch.zeros(shape)
            case 2:
                other = reader.choice(_bases())
                name = reader.choice(list(other))
                tensors[name] = torch.zeros(other[name])
            case 3:
                tensors[name.replace('.0.', f'.{reader.number(12)}.')] = tensors[name]
            case 4:
                tensors[name] = tensors[name].to(reader.choice((torch.int64, torch.bool, torch.half, torch.cfloat)))
            case 5:
                prefix = reader.choice(('module.', 'backbone.', 'model.', 'vqgan.', 'token_predictor.'))
                tensors = {f'{prefix}{key}': value for key, value in tensors.items()}
    return tensors


def convert_layout(data: bytes) -> None:
    """Convert a state dict, and infer the arguments of the module."""
    state_dict = changed_state_dict(Reader(data))
    held_by(state_dict, {})
    advice_on_prefix(state_dict)
    layout = find_layout(state_dict) or LAYOUTS[len(data) % len(LAYOUTS)]
    converted = layout.convert(state_dict)
    layout.build_args(state_dict)
    if layout.component == 'backbone':
        to_timm(converted, 2)
    elif layout.name == 'ADDP':
        published_settings(converted, 2, 2, 2, 2)


LAYOUT = Target(convert_layout, lambda: (bytes([number]) for number in range(len(_bases()))), allowed=(ValueError,))
