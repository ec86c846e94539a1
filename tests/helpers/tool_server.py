# Copyright (c) addp_mm contributors. Apache-2.0.
"""Import the heavy packages once, and run command line tools in forks of this process.

Each line of stdin is a job in JSON: ``{"argv": [script, …], "cwd": folder, "environ": [{…}, …],
"log": file}``. Each environment gets a process. The answer on stdout is the first exit status that
is not 0.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

_MODULES = (
    'addp_mm.engine.runner_cfg',  # first: mmdet and mmseg need its mmcv._ext
    *(f'{package}.{part}' for package in ('mmpretrain', 'mmdet', 'mmseg') for part in ('datasets', 'engine', 'models')),
    *(f'{package}.{part}' for package in ('mmpretrain', 'mmdet', 'mmseg') for part in ('evaluation', 'visualization')),
    *(f'addp_mm.models.{part}' for part in ('backbones', 'discriminators', 'heads', 'losses', 'necks', 'predictors')),
    *('addp_mm.models.selfsup', 'addp_mm.models.tokenizers'),
    *('addp_mm.checks.check_list', 'addp_mm.engine.hooks', 'addp_mm.evaluation', 'addp_mm.generation'),
    *('matplotlib.pyplot', 'torch.utils.tensorboard'),
)


def run(job: dict, environ: dict) -> int:
    """Run the tool in this process with its output in the log; return the exit status."""
    log = os.open(job['log'], os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job['cwd'])
    os.environ.update(environ)
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


def fork(job: dict, environ: dict) -> int:
    """Run the tool in a fork; return its process id."""
    child = os.fork()
    if child == 0:
        status = run(job, environ)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return child


def wait(children: list[int]) -> int:
    """Wait for processes; once one fails, end the others, which would wait for it."""
    left, failed = set(children), 0
    while left:
        child, status = os.wait()
        left.discard(child)
        if os.waitstatus_to_exitcode(status) and not failed:
            failed = os.waitstatus_to_exitcode(status)
            for other in left:
                os.kill(other, signal.SIGKILL)
    return failed


def main() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    import torch
    from mmengine.config import Config

    from helpers.config_files import read_fast

    torch.set_num_threads(1)
    read_fast()
    Config(dict(a=1)).pretty_text  # noqa: B018  # loads the formatter once for all forks
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        Path(job['log']).write_text('')
        children = [fork(job, environ) for environ in job['environ']]
        print('STATUS', wait(children), flush=True)


if __name__ == '__main__':
    main()
