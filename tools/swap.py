# Copyright (c) addp_mm contributors. Apache-2.0.
"""Put another backbone into a config of mmdet, mmsegmentation or mmpretrain, or check a config.

The new config is short, inherits from CONFIG, and says why each of its lines is there. Before it is
written, its model is built, trained for one step, and used for one prediction, all on small made-up
images with random weights. Nothing is downloaded.
"""

import argparse
import json
import sys
import uuid
import warnings
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path

from addp_mm.cli_options import ToolParser


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config file, name of a shipped config, mmdet::NAME, mmseg::NAME or mmpretrain::NAME',
    )
    parser.add_argument('--backbone', metavar='NAME', help='a name that --list prints, timm:MODEL, or a checkpoint')
    parser.add_argument('--out', metavar='FILE', help='the config file to write, such as my_config.py')
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
    parser.add_argument('--no-trial', action='store_true', help='write the config without building its model')
    parser.add_argument('--check', action='store_true', help='check CONFIG as it is; the exit status is 1 at an error')
    parser.add_argument('--list', action='store_true', help='list the names of backbones')
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    args = parser.parse_args(argv)
    if args.list:
        return args
    if args.config is None:
        parser.error('the following arguments are required: CONFIG')
    if args.check and (args.backbone or args.out):
        parser.error('--check reads CONFIG as it is: leave out --backbone and --out')
    missing = [] if args.check else [f'--{name}' for name in ('backbone', 'out') if not getattr(args, name)]
    if missing:
        hint = '. The names of backbones are printed by: addp swap --list' if '--backbone' in missing else ''
        parser.error(f'the following arguments are required: {", ".join(missing)}{hint}')
    return args


def check_out(out, config, overwrite):
    """Check that the new config can be written.

    Raises:
        ConfigError: It is not a Python file, exists, is the config itself, or cannot be written.
    """
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import ConfigError

    path = Path(out)
    if path.suffix != '.py':
        raise ConfigError(f'--out {out}: a config file ends in .py, such as {path.with_suffix(".py")}')
    require_writable(out, '--out')
    if Path(config).exists() and path.exists() and path.samefile(config):
        raise ConfigError(f'--out {out} is the config itself, which the new file inherits from. Give another name')
    if path.exists() and not overwrite:
        raise ConfigError(f'--out {out} exists: give another name, or --overwrite to replace it')


@contextmanager
def draft_of(out):
    """Yield the name of a draft beside ``out``, which becomes ``out`` if the block has no error."""
    path = Path(out)
    draft = path.with_name(f'.{path.stem}_{uuid.uuid4().hex}.py')
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def swap(args):
    """Write the config, try it, and print what changed."""
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.captured_warnings import captured_warnings
    from addp_mm.swap.plan_swap import plan_swap
    from addp_mm.swap.report import as_json, table, train_command, trial_in_words
    from addp_mm.swap.trial import count_parameters, try_swap
    from addp_mm.swap.write_config import base_name, write_config

    with redirect_stdout(sys.stderr):  # some packages print when they are imported
        name = base_name(args.config, args.out)
        before = load_config(args.config)
        check_out(args.out, args.config, args.overwrite)
        plan = plan_swap(before, name, args.backbone)
        trial, failure = None, None
        with draft_of(args.out) as draft, captured_warnings():
            write_config(plan, draft)
            after = load_config(str(draft))
            if not args.no_trial:
                trial, failure = try_swap(before, after, plan.trial_size, plan.image_divisor)
            parameters = (count_parameters(before), trial.parameters if trial else count_parameters(after))
    if args.json:
        report = as_json(plan, before, after, args.out, parameters, trial)
        print(json.dumps(dict(report, trial_error=failure), indent=2))
        return
    print(f'{plan.config} with the backbone {plan.backbone}\n')
    print(table(plan, before, after), end='\n\n')
    print('parameters: {:.1f} M before, {:.1f} M after'.format(*(count / 1e6 for count in parameters)))
    print(*(f'{line}\n' for line in (trial_in_words(trial) if trial else ())), sep='', end='')
    if failure:
        print(f'note: no trial was possible, neither of the original config nor of the new one: {failure}')
    print(*(f'warning: {text}\n' for text in plan.warnings), sep='', end='')
    print(*(f'note: {note}\n' for note in plan.notes), sep='', end='')
    print(f'written: {args.out}\ntrain it: {train_command(args.out)}')


def check(args):
    """Check the config and print the results.

    Returns:
        Whether a check failed.
    """
    from addp_mm.analysis.data_page import verdict
    from addp_mm.checks.check_list import collect_errors
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.captured_warnings import captured_warnings
    from addp_mm.swap.check import TrialOfCheck, swap_checks
    from addp_mm.swap.report import trial_in_words

    with captured_warnings() as (logged, _), redirect_stdout(sys.stderr):
        cfg = load_config(args.config)
        trial = TrialOfCheck(cfg)
        checks = collect_errors(swap_checks(cfg, trial))
    if args.json:
        shown = trial.trial and asdict(trial.trial)
        print(json.dumps(dict(config=args.config, checks=checks, warnings=logged, trial=shown), indent=2))
        return any(checks.values())
    print(*(f'{"FAILED" if found else "passed"}  {name}\n' for name, found in checks.items()), sep='')
    print(*(f'error: {name}: {text}\n' for name, found in checks.items() for text in found), sep='', end='')
    print(*(f'warning: {text}\n' for text in logged), sep='', end='')
    print(*(f'{line}\n' for line in (trial_in_words(trial.trial) if trial.trial else ())), sep='', end='')
    print(verdict(checks, logged))
    return any(checks.values())


def list_backbones(as_json):
    """Print the names of the zoo."""
    from addp_mm.cli_options import aligned
    from addp_mm.swap.zoo import ZOO

    rows = [(name, entry.backbone['type'], _weights(entry.backbone)) for name, entry in ZOO.items()]
    if as_json:
        print(json.dumps([dict(name=name, type=kind, weights=weights) for name, kind, weights in rows], indent=2))
        return
    print(aligned([('name', 'type', 'weights'), *rows]))
    print('\nOr timm:MODEL with any model of timm, or the path of a checkpoint of addp_mm.ADDPViT')


def _weights(backbone):
    return (backbone.get('init_cfg') or {}).get('checkpoint') or f'timm: {backbone.get("model")}'


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    warnings.simplefilter('ignore')  # those of other packages about their own code
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        if args.list:
            list_backbones(args.json)
        elif args.check:
            sys.exit(check(args))
        else:
            swap(args)


if __name__ == '__main__':
    main()
