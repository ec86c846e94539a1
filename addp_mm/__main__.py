# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a script of another package with addp_mm's mends in force: ``python -m addp_mm SCRIPT [ARGUMENT ...]``.

A config's ``custom_imports=['addp_mm']`` does the same once the config is read. Some scripts, such as mmdet's own
``tools/test.py``, import operators before they read any config, which fails where mmcv has none compiled.
"""
import os
import runpy
import sys


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        sys.exit(__doc__)
    script = sys.argv[1]
    if not os.path.isfile(script):
        sys.exit(f'addp_mm: no script at {script}')
    sys.argv = sys.argv[1:]
    # as the interpreter does for a script
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
