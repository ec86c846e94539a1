# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp doctor``: a report on the environment, with one training step on each kind of device.

Every line is 'ok', 'warning' or 'error'. An error or a warning comes with a remedy. Only the
standard library and :mod:`addp_mm.compat` are imported at the top: the report has to work where
torch or an OpenMMLab package does not.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

from addp_mm.cli_options import aligned
from addp_mm.doctor import devices, openmmlab, operators, packages, system, training
from addp_mm.doctor.finding import Finding, first_line
from addp_mm.errors import exit_on_user_error

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    system.check_system,
    system.check_folders,
    system.check_shared_memory,
    system.check_open_files,
    packages.check_requirements,
    devices.check_torch,
    packages.check_opencv,
    packages.check_setuptools,
    packages.check_compiled,
    packages.check_transformers,
    openmmlab.check_openmmlab,
    openmmlab.check_operators,
    openmmlab.check_patches,
    devices.check_gpus,
    training.check_training,
)


def examine() -> Iterator[Finding]:
    """Run every check. If a check raises an exception, the report shows it as an error."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            subject = check.__name__.removeprefix('check_')
            yield Finding('error', subject, f'not checked: {first_line(error)}', 'first follow the other remedies')


def _quiet(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Hide output, log lines and warnings of the packages during the checks."""
    while True:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            logging.disable(logging.INFO)
            finding = next(findings, None)
            logging.disable(logging.NOTSET)
        if finding is None:
            return
        yield finding


def shown(finding: Finding) -> str:
    """A finding as lines of text, with an indented remedy."""
    lines = [f'{finding.status:<8} {finding.subject}: {finding.text}']
    if finding.remedy:
        lines += [f'         -> {line.strip()}' for line in finding.remedy.strip().splitlines()]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report; the exit status is 1 if it has an error."""
    parser = argparse.ArgumentParser(prog='addp doctor', description='Check the environment and run one training step.')
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    parser.add_argument(
        '--ops', action='store_true', help="list mmcv's operators instead, and who provides them in this installation"
    )
    args = parser.parse_args(argv)
    if args.ops:
        with exit_on_user_error():
            _list_operators(args.json)
        return
    findings = []
    for finding in _quiet(examine()):
        findings.append(finding)
        if not args.json:
            print(shown(finding), flush=True)
    counts = {status: sum(finding.status == status for finding in findings) for status in ('error', 'warning')}
    if args.json:
        print(json.dumps(dict(findings=[dataclasses.asdict(finding) for finding in findings], **counts), indent=2))
    else:
        print(f'\n{counts["error"]} error(s), {counts["warning"]} warning(s)')
    sys.exit(1 if counts['error'] else 0)


def _list_operators(as_json: bool) -> None:
    """Print the operators, how many there are, and which of them the device leaves to the CPU."""
    from addp_mm.devices import default_device

    found = list(operators.operators())
    if as_json:
        print(json.dumps([dict(dataclasses.asdict(one), passes=one.passes) for one in found], indent=2))
        return
    print(aligned(operators.table(found)))
    providers = {name: sum(one.provider == name for one in found) for name in (operators.COMPILED, operators.OURS)}
    counts = ', '.join(
        f'{count} {"" if name == operators.COMPILED else "from "}{name}' for name, count in providers.items()
    )
    missing = sum(one.provider == operators.MISSING for one in found)
    print(f'\n{len(found)} operators: {counts}, {missing} missing. A missing one can be imported; called, it says so')
    if providers[operators.OURS]:
        device = default_device()
        print(f'Device: {device.type}. Computed on the CPU: {", ".join(operators.left_to_the_cpu(device)) or "all"}')
