# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check a config and its data before training, and count what the data contain.

All checks of a training and a test are run, and all that fail are listed. The exit status is 1 if a
check fails. Nothing is trained, and no weights are downloaded.
"""

import argparse
import io
import shlex
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, aligned, number

_SPLITS = ('train', 'val', 'test')
# Top-level keys that each split needs.
_NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': (),
    'test': ('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
}


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of a shipped config')
    parser.add_argument(
        '--split',
        nargs='+',
        action='extend',
        choices=_SPLITS,
        help='splits to check and count [all that the config has]',
    )
    parser.add_argument('--out', help='folder for report.html and report.json')
    parser.add_argument(
        '--num-images', type=number(int, 0), default=12, help='annotated images of each dataset in report.html [12]'
    )
    parser.add_argument('--num-workers', type=number(int, 0), default=2, help='threads that read images [2]')
    parser.add_argument('--seed', type=number(int, 0), default=0, help='which images are drawn [0]')
    parser.add_argument('--no-model', action='store_true', help='do not build the model; its checks are left out')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def splits_of(cfg, wanted):
    """The splits to check: those that are wanted, by default all that the config has."""
    from addp_mm.errors import ConfigError

    there = [split for split in _SPLITS if cfg.get(f'{split}_dataloader') is not None]
    missing = [split for split in wanted or () if split not in there]
    if missing:
        raise ConfigError(f'--split {missing[0]}: the config has no {missing[0]}_dataloader; it has {there}')
    if not there:
        raise ConfigError('the config has no train_dataloader, val_dataloader or test_dataloader to check')
    return [split for split in there if not wanted or split in wanted]


def with_progress(checks):
    """Yield the checks; a terminal shows which one is running."""
    from tqdm import tqdm

    with tqdm(bar_format='Checking: {desc}', disable=None, leave=False) as bar:
        for check in checks:
            bar.set_description_str(check.name)
            yield check


def checks_without_model(cfg, trial, splits):
    """Yield the checks that need no model; those of the data may change ``trial``."""
    from functools import partial

    from addp_mm.checks.check_list import Check, data_checks, settings_checks, training_checks
    from addp_mm.checks.weights import check_initial_weights
    from addp_mm.engine.trial_runner import check_strategy

    needed = dict.fromkeys(key for split in splits for key in _NEEDED[split])
    yield from settings_checks(cfg, tuple(needed))
    if 'train' in splits:
        yield from training_checks(cfg)
    yield Check('strategy', partial(check_strategy, cfg))
    yield Check('checkpoints', partial(check_initial_weights, cfg))
    yield from data_checks(trial, *splits)


def run_all_checks(cfg, splits, with_model):
    """Run all checks.

    Returns:
        The messages of each check by its name, [] if it passed; and the warnings.
    """
    from addp_mm.checks.check_list import collect_errors
    from addp_mm.engine.captured_warnings import captured_warnings
    from addp_mm.engine.trial_runner import model_checks, remove_downloads, trial_config

    # pycocotools prints to stdout while it reads a file
    with captured_warnings() as (logged, add_logger), redirect_stdout(io.StringIO()), trial_config(cfg) as trial:
        checks = collect_errors(with_progress(checks_without_model(cfg, trial, splits)))
        if not with_model:
            return checks, logged
        if checks['arguments of the config']:
            return checks, [*logged, 'the model is not checked yet: correct the arguments of the config first']
        notes = remove_downloads(trial)
        if checks['data']:
            notes.append('the loops and the first batches are not checked yet: correct the data first')
        steps = model_checks(
            trial,
            load_from=cfg.get('load_from'),
            with_data=not checks['data'],
            all_weights=not (notes or checks['checkpoints']),
            complete=lambda runner: add_logger(runner.logger),
        )
        checks.update(collect_errors(with_progress(steps)))
        return checks, [*logged, *notes]


def count_data(cfg, splits, args, checks):
    """Count what the datasets of the splits contain.

    Some datasets check their files themselves. If that fails, the message is added to ``checks``.

    Returns:
        The reports, and the image files with the same content.
    """
    from addp_mm.analysis.data_counts import Counting
    from addp_mm.analysis.data_report import DataReport, datasets_of, place_of
    from addp_mm.analysis.duplicates import find_duplicates
    from addp_mm.config.type_names import type_name
    from addp_mm.engine.captured_warnings import captured_warnings
    from addp_mm.engine.trial_runner import trial_config
    from addp_mm.errors import UserError

    count = Counting(args.num_images if args.out else 0, args.seed, args.num_workers)
    reports, sources = [], {}
    with captured_warnings(), redirect_stdout(io.StringIO()), trial_config(cfg) as trial:
        for split, dataset in datasets_of(trial, splits):
            try:
                report = count(split, dataset)
            except Exception as error:  # another dataset can still be counted
                report = DataReport(split, type_name(dataset['type']), place_of(dataset))
                report.notes.append(f'could not be counted ({type(error).__name__}: {error})')
                if isinstance(error, UserError) and not any(str(error) in messages for messages in checks.values()):
                    checks[f'reading {split}'] = [str(error)]
            reports.append(report)
            if report.source is not None:
                sources.setdefault(split, []).append(report.source)
        return reports, find_duplicates(sources, args.num_workers) if sources else None


def print_results(checks, notable, reports):
    """Print the numbers, then the results of the checks: errors first, then warnings."""
    from addp_mm.analysis.data_page import overview, verdict

    if reports:
        print(aligned([['', *(report.split for report in reports)], *overview(reports)], numbers=True))
        for report in reports:
            print(*(f'{report.split}: {note}' for note in report.notes), sep='\n', end='\n' if report.notes else '')
        print()
    for name, messages in checks.items():
        print(f'{"FAILED" if messages else "passed"}  {name}')
    print()
    for name, messages in checks.items():
        print(*(f'error: {name}: {message}\n' for message in messages), sep='', end='')
    print(*(f'warning: {text}\n' for text in notable), sep='', end='')
    print(verdict(checks, notable))


def write_results(folder, args, checks, notable, reports, duplicates):
    """Write report.json and report.html."""
    from addp_mm.analysis.data_page import write_data_page
    from addp_mm.analysis.duplicates import as_json
    from addp_mm.checkpoints.atomic_write import write_json

    write_json(
        folder / 'report.json',
        dict(
            config=args.config,
            checks=checks,
            warnings=notable,
            data=[report.numbers() for report in reports],
            duplicates=as_json(duplicates),
        ),
    )
    command = shlex.join(['addp', 'check', *(sys.argv[1:])])
    write_data_page(folder / 'report.html', args.config, checks, notable, reports, duplicates, command)
    print(f'report: {folder / "report.html"}')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    warnings.simplefilter('ignore')  # those of other packages about their own code
    from mmengine.registry import init_default_scope

    from addp_mm.analysis.data_findings import findings
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        cfg = load_config(args.config, args.cfg_options, argument_kinds)
        splits = splits_of(cfg, args.split)
        if args.out:
            require_writable_folder(args.out, f'--out {args.out}')
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        checks, logged = run_all_checks(cfg, splits, not args.no_model)
        reports, duplicates = count_data(cfg, splits, args, checks)
        notable = [*logged, *findings(reports, duplicates)]
        print_results(checks, notable, reports)
        if args.out:
            write_results(Path(args.out), args, checks, notable, reports, duplicates)
    sys.exit(any(checks.values()))


if __name__ == '__main__':
    main()
