# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of docs/swap.md, from the cases that the tests run.

``PYTHONPATH=tests python -m helpers.swap_table`` prints it.
"""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

WIDTHS = ('in_channels', 'embed_dims', 'input_features', 'type', '_delete_', '_scope_', 'norm_cfg', 'act_cfg')
HEAD = '| Config | Model and head | Blocks returned | Neck |\n|---|---|---|---|'


def cases() -> dict[str, tuple[str, str]]:
    """For each standard config, ``package::path``, its path and the text that replaces parts of
    it."""
    from swap import test_swap_cls, test_swap_det, test_swap_seg

    packages = {'mmdet': test_swap_det, 'mmseg': test_swap_seg, 'mmpretrain': test_swap_cls}
    return {
        f'{package}::{base}': (base, model)
        for package, module in packages.items()
        for base, model in module.SWAPS.values()
    }


def row(address: str, cfg: Config) -> str:
    """Return the line of one config."""
    model = cfg.model
    head = next((model[name] for name in ('decode_head', 'panoptic_head', 'head') if name in model), {})
    head = head if isinstance(head, dict) else head[-1]
    kind = model.type + (f', {head["type"]}' if 'type' in head else '')
    blocks = model.backbone.get('out_indices', -1)
    returned = 'last' if isinstance(blocks, int) else str(len(blocks))
    necks = model.get('neck') or []
    necks = [_call(one) for one in (necks if isinstance(necks, list) else [necks])]
    return f'| `{address}` | {kind} | {returned} | {", ".join(necks) or "none"} |'


def _call(neck: dict) -> str:
    shown = {key: value for key, value in neck.items() if key not in WIDTHS}
    arguments = ', '.join(f'{key}={value!r}' for key, value in shown.items())
    return f'`{neck["type"].removeprefix("addp_mm.")}({arguments})`'


def table(folder: Path) -> str:
    """Return the whole table. A config file for each case is written into ``folder``."""
    from helpers.stock_swaps import write_swap

    rows = [
        row(address, Config.fromfile(write_swap(folder / f'{index}.py', address, model)))
        for index, (address, (_, model)) in enumerate(cases().items())
    ]
    return '\n'.join([HEAD, *rows])


if __name__ == '__main__':
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        print(table(Path(made)))
