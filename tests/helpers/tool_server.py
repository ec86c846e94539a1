# Copyright (c) addp_mm contributors. Apache-2.0.
"""Import the heavy packages once, and run command line tools in forks of this process.

Each line of stdin is a job in JSON: ``{"argv": [script, …], "cwd": folder, "environ": {…}, "log":
file}``. The answer on stdout is the exit status.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import traceback

_MODULES = (
    'addp_mm.engine.runner_cfg',  # first: mmdet and mmseg need its mmcv._ext
    *(f'{package}.{part}' for package in ('mmpretrain', 'mmdet', 'mmseg') for part in ('datasets', 'engine', 'models')),
    *(f'{package}.{part}' for package in ('mmpretrain', 'mmdet', 'mmseg') for part in ('evaluation', 'visualization')),
    *(f'addp_mm.models.{part}' for part in ('backbones', 'discriminators', 'heads', 'losses', 'necks', 'predictors')),
    *('addp_mm.models.selfsup', 'addp_mm.models.tokenizers'),
    *('addp_mm.checks.check_list', 'addp_mm.engine.hooks', 'addp_mm.evaluation', 'addp_mm.generation'),
    *('matplotlib.pyplot', 'torch.utils.tensorboard'),
)


def run(job: dict) -> int:
    """Run the tool in this process with its output in the log; return the exit status."""
    log = os.open(job['log'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job['cwd'])
    os.environ.update(job['environ'])
    sys.argv = job['argv']
    try:
        runpy.run_path(job['argv'][0], run_name='__main__')
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return 0 if stop.code is None else stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    import torch
    from helpers.config_files import read_fast
    from mmengine.config import Config

    torch.set_num_threads(1)
    read_fast()
    Config(dict(a=1)).pretty_text  # noqa: B018  # loads the formatter once for all forks
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print('STATUS', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == '__main__':
    main()
