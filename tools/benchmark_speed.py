# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure the speed of addp_mm, and write it to speed.json and speed.md in a folder.

Each measurement is a tool of tools/benchmarks/ in a process of its own: a training step and a
sampling run by component, the backbone against timm and mmpretrain, operators against torchvision,
the data pipeline. Weights, images and image files are random; nothing is downloaded. Finished
measurements in the folder are not repeated, so that you can give the same command again after an
interruption. Nothing else should run on the machine.
"""

import argparse
import shlex
import sys
from pathlib import Path

from addp_mm.benchmark.speed_steps import NAMES
from addp_mm.cli_options import add_device_option, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/speed'), help='folder of results [work_dirs/speed]')
    parser.add_argument('--only', nargs='+', action='extend', choices=NAMES, help='measurements to do [all]')
    add_device_option(parser)
    parser.add_argument('--rounds', type=number(int, 1), help='timed steps of each case [as each tool has it]')
    parser.add_argument('--published', metavar='DIR', help='folder with the published ADDP code, to measure against')
    parser.add_argument(
        '--quick', action='store_true', help='small models and sizes, to try the command: the numbers mean nothing'
    )
    return parser.parse_args(argv)


def measure(args):
    """Run the tools; return what they wrote, and the causes of failures, by name."""
    from addp_mm.benchmark.speed_steps import Options, speed_steps
    from addp_mm.benchmark.step_runner import StepError, StepRunner
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.engine.device import choose_device
    from addp_mm.folder_lock import lock_folder
    from addp_mm.report.logs import read_json
    from addp_mm.report.machine import cores

    require_writable_folder(args.out, '--out')
    options = Options(str(choose_device(args.device)), args.rounds, args.published, args.quick)
    lock = lock_folder(args.out)
    try:
        steps = speed_steps(options, args.out / 'results')
        wanted = [step for name, step in steps.items() if name in (args.only or NAMES)]
        (args.out / 'results').mkdir(exist_ok=True)
        done = StepRunner(args.out, 1, cores(), [lock.fileno()]).run_all(wanted)
    finally:
        lock.close()
    failures = {name: result.cause for name, result in done.items() if isinstance(result, StepError)}
    return {name: read_json(steps[name].outputs[0]) for name in done if name not in failures}, failures


def main(argv=None):
    """Run the tool."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    from addp_mm.benchmark.speed_page import as_json, as_markdown
    from addp_mm.checkpoints.atomic_write import write_json, write_text
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt(f'finished measurements are in {args.out}; the same command goes on'), exit_on_user_error():
        results, failures = measure(args)
        command = shlex.join(['addp', 'benchmark-speed', *argv])
        paths = args.out / 'speed.json', args.out / 'speed.md'
        write_json(paths[0], as_json(command, results, failures))
        write_text(paths[1], as_markdown(command, results, failures))
    for name, cause in failures.items():
        print(f'failed: {name}: {cause}')
    print('\n'.join(f'wrote {path}' for path in paths))
    if failures:
        sys.exit(1)


if __name__ == '__main__':
    main()
