# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a script with addp_mm's mends in force: ``python -m addp_mm SCRIPT [ARGUMENT ...]``.

SCRIPT is a file, such as mmdet's own ``tools/test.py``, or a tool that addp_mm ships where no such
file exists: ``python -m addp_mm tools/train.py addp_mm::cls/…``.

A config's ``custom_imports=['addp_mm']`` does the same once the config is read. Some scripts, such
as mmdet's own ``tools/test.py``, import operators before they read any config, which fails where
mmcv has none compiled.
"""

import os
import runpy
import sys

from addp_mm.config.shipped import tool_path
from addp_mm.errors import reported_in_words


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        sys.exit(__doc__)
    script = sys.argv[1]
    if not os.path.isfile(script):
        with reported_in_words():
            script = tool_path(script)
    sys.argv = [script, *sys.argv[2:]]
    # as the interpreter does for a script
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
