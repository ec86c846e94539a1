# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/benchmark_backbones.py on tiny classifiers, with its commands in forks of one process."""

import contextlib
import io
import json
import runpy
import traceback
from pathlib import Path

import pytest

from addp_mm.logged_command import Outcome

ROOT = Path(__file__).parents[2]
TOOLS = f'{ROOT / "tools"}/'


@pytest.fixture
def commands(run_tool, monkeypatch, tmp_path):
    """Names of the steps that the benchmark ran. Its relative paths are those of ``tmp_path``.

    Trainings and tests run in forks of one process, measurements in the process of the tests.
    """
    ran = []
    monkeypatch.chdir(tmp_path)

    def run_logged(command, log, environment=None, **options):
        _, path, *arguments = command
        tool = path.removeprefix(TOOLS)
        ran.append(log.stem)
        log.parent.mkdir(parents=True, exist_ok=True)
        if tool in ('train.py', 'test.py'):
            monkeypatch.setattr(run_tool, 'folder', tmp_path)
            finished = run_tool(tool, *arguments)
            status, output = finished.status, finished.output
        else:
            status, output = _run_here(path, arguments)
        log.write_text(output)
        return Outcome(status, 1.0, 1.0)

    monkeypatch.setattr('addp_mm.benchmark.step_runner.run_logged', run_logged)
    return ran


def _run_here(path: str, arguments: list[str]) -> tuple[int, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            runpy.run_path(path, run_name='tool')['main'](arguments)
        except BaseException:  # the log of a process ends with its traceback
            return 1, output.getvalue() + traceback.format_exc()
    return 0, output.getvalue()


@pytest.fixture
def tiny_listing(workplace, tmp_path) -> Path:
    """Two tiny classifiers, and one that cannot be built."""
    tiny = workplace / 'tiny.py'
    (workplace / 'data/fashion_scenes.json').write_text('{}')
    changes = dict(one='', two='arch=dict(num_layers=1)', broken='patch_size=5')
    entries = []
    for name, change in changes.items():
        (tmp_path / f'{name}.py').write_text(f'_base_ = {str(tiny)!r}\nmodel = dict(backbone=dict({change}))\n')
        entries.append(f'  {name}:\n    title: The {name}\n    cls: {name}.py\n')
    path = tmp_path / 'listing.yml'
    path.write_text('fashion_scenes:\n' + ''.join(entries))
    return path


def benchmark(*arguments) -> int:
    """Run the tool in this process; return its exit status, or the error."""
    tool = runpy.run_path(str(ROOT / 'tools/benchmark_backbones.py'), run_name='tool')
    try:
        tool['main']([str(word) for word in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def rows(folder: Path) -> dict[str, dict]:
    """The rows of a finished benchmark by name of the backbone."""
    return {row['backbone']: row for row in json.loads((folder / 'benchmark.json').read_text())['rows']}
