# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is imported before anything is done: the standard library, and few modules of our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# 41 when this was written: the package, its patches and what they need
MOST_OWN = 60
REPORT = """
import json, sys
before = set(sys.modules)
argv = json.loads(sys.argv[1])
try:
    if argv is None:
        import addp_mm
    else:
        import runpy
        sys.argv = argv
        sys.path.insert(0, {root!r})
        runpy.run_path(argv[0], run_name='__main__')
except SystemExit as stop:
    assert not stop.code, stop.code
new = set(sys.modules) - before
tops = {{name.partition('.')[0] for name in new}}
own = [name for name in new if name.partition('.')[0] == 'addp_mm']
print('REPORT', json.dumps([sorted(tops - set(sys.stdlib_module_names) - {{'addp_mm', '__mp_main__'}}), len(own)]))
"""


def imported(argv: list[str] | None) -> tuple[list[str], int]:
    """Top-level names of other packages, and the number of our own modules, in a fresh process."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', REPORT.format(root=str(ROOT)), json.dumps(argv)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    others, own = json.loads(done.stdout.rpartition('REPORT ')[2])
    return others, own


@pytest.mark.parametrize(
    'argv',
    [None, ['addp_mm/__main__.py', '--help'], ['tools/train.py', '--help'], ['tools/test.py', '--help']],
    ids=['import addp_mm', 'addp --help', 'train.py --help', 'test.py --help'],
)
def test_nothing_of_another_package_is_imported(argv):
    others, own = imported(argv)
    assert others == []
    assert 1 <= own <= MOST_OWN
