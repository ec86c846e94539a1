# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run the checks of a training on all configs of the OpenMMLab packages and of addp_mm.

It prints each config that is refused or warned about, and the counts: docs/schedules.md has them.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from tqdm import tqdm

import addp_mm  # noqa: F401  # before the packages: they need its operators
from addp_mm.checks.check_list import collect_errors, training_checks
from addp_mm.checks.counting import find_counting_faults

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')
ROOT = Path(__file__).parents[1]


def config_files() -> Iterator[Path]:
    """Yield the files of all configs; bases of the packages have no training."""
    for package in PACKAGES:
        for part in ('models', 'engine', 'datasets'):
            importlib.import_module(f'{package}.{part}')
        folder = Path(importlib.import_module(package).__file__).parent / '.mim/configs'
        yield from sorted(folder.rglob('*.py'))
    yield from sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


def main() -> None:
    """Run the script."""
    counts = dict.fromkeys(('with a training', 'refused', 'warned', 'not read'), 0)
    for path in tqdm(list(config_files())):
        try:
            cfg = Config.fromfile(path)
        except Exception as error:  # a base that lacks the names of its config
            counts['not read'] += 1
            tqdm.write(f'not read: {path}: {type(error).__name__}')
            continue
        if not all(cfg.get(key) for key in ('model', 'train_cfg', 'train_dataloader', 'optim_wrapper')):
            continue
        counts['with a training'] += 1
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
            errors = [text for texts in collect_errors(training_checks(cfg)).values() for text in texts]
            warnings = find_counting_faults(cfg).warnings
        counts['refused'] += bool(errors)
        counts['warned'] += bool(warnings)
        for text in (*errors, *warnings):
            tqdm.write(f'{path}: {text}')
    print(', '.join(f'{number} {name}' for name, number in counts.items()))


if __name__ == '__main__':
    main()
