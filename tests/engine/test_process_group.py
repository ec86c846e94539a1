# Copyright (c) addp_mm contributors. Apache-2.0.
"""How a process ends that was in a group."""

import subprocess
import sys

import pytest

CODE = """
import atexit, os, tempfile, threading, time, torch
from addp_mm.engine.process_group import close_process_group, end_process

class Loud:
    def __del__(self):
        print('destroyed by Python')

atexit.register(print, 'registered with atexit')
if {joined}:
    file = tempfile.mktemp()
    torch.distributed.init_process_group('gloo', f'file://{{file}}', rank=0, world_size=1)
    group = torch.distributed.group.WORLD  # as FSDP keeps it
close_process_group()
loud = Loud()
threading.Thread(target=lambda: (time.sleep(0.1), print('the thread has ended'))).start()
end_process()
"""


@pytest.mark.parametrize('joined', [True, False])
def test_a_process_that_was_in_a_group_skips_the_last_phase_only(joined):
    finished = subprocess.run([sys.executable, '-c', CODE.format(joined=joined)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert 'registered with atexit' in finished.stdout
    assert 'the thread has ended' in finished.stdout
    assert ('destroyed by Python' in finished.stdout) != joined
