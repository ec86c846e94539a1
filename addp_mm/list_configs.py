# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp list``: a table of the shipped configs with their entries in the model index."""

import argparse
import difflib
import fnmatch
import re
import sys
from collections.abc import Sequence

from addp_mm.cli_options import aligned
from addp_mm.config.shipped import metafiles, shipped_root
from addp_mm.errors import exit_on_user_error

TASKS = dict(pretrain='pre-training', cls='classification', det='detection', seg='segmentation', align='alignment')
HEADER = ('config', 'task', 'data', 'architecture', 'epochs', 'weights')


def rows(pattern: str = '') -> list[tuple[str, ...]]:
    """Shipped configs whose name matches.

    Args:
        pattern: Part of a name, or a pattern with ``*`` and ``?`` for the whole name, in upper or
            lower case. Defaults to '', which every name matches.

    Returns:
        One row for each config, with the columns of :data:`HEADER`; ``'-'`` where the index has no
        entry.
    """
    import yaml

    known = {
        model['Config']: model
        for path in metafiles()
        for model in yaml.safe_load(path.read_text(encoding='utf-8'))['Models']
    }
    pattern = pattern.lower().removesuffix('.py')
    pattern = pattern if set(pattern) & set('*?[') else f'*{pattern}*'
    found: list[tuple[str, ...]] = []
    for folder, task in TASKS.items():
        for path in sorted((shipped_root() / 'configs' / folder).glob('*.py')):
            if fnmatch.fnmatchcase(path.stem.lower(), pattern):
                model = known.get(f'configs/{folder}/{path.name}', {})
                facts = model.get('Metadata', {})
                architecture = ' + '.join(facts.get('Architecture', ['-']))
                found.append(
                    (
                        path.stem,
                        task,
                        facts.get('Training Data', '-'),
                        architecture,
                        str(facts.get('Epochs', '-')),
                        model.get('Weights', '-'),
                    )
                )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table. If no config matches, print the nearest names and exit with status 1."""
    parser = argparse.ArgumentParser(prog='addp list', description='List the shipped configs.')
    parser.add_argument('pattern', nargs='?', default='', help="part of a name, or a pattern such as 'mask-rcnn_*1x*'")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        found = rows(args.pattern)
        if not found:
            names = [row[0] for row in rows()]
            words = {word for name in names for word in re.split('[_-]', name)}
            near = difflib.get_close_matches(args.pattern, [*sorted(words), *names], n=3, cutoff=0.6)
            hint = f'; did you mean {", ".join(near)}?' if near else ''
            sys.exit(f'error: no shipped config matches {args.pattern}{hint}')
        print(aligned([HEADER, *found]))
        print(f'\n{len(found)} configs. Train one with: addp train CONFIG')
