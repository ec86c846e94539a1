# Copyright (c) addp_mm contributors. Apache-2.0.
"""The memory that a process on the CPU keeps."""

import os
import resource
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from addp_mm.engine.cpu_memory import keep_freed_memory, memory_given_back

def faults():
    for _ in range(4):  # until free memory lies together
        torch.ones(2**24)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual, kept = faults(), keep_freed_memory()
print(usual, kept, faults())
with memory_given_back():
    print(faults())
print(faults())
"""


def run(**environment) -> list[str]:
    finished = subprocess.run(
        [sys.executable, '-c', CODE], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return finished.stdout.split()


@pytest.mark.skipif('CS_GNU_LIBC_VERSION' not in os.confstr_names, reason='needs glibc')
def test_a_tensor_gets_the_pages_that_the_last_one_had():
    pages = 2**26 // resource.getpagesize()
    usual, kept, afterwards, inside, outside = run()
    assert kept == 'True'
    assert int(usual) >= pages // 2 < int(inside)  # the system may give several pages at once
    assert int(afterwards) < pages // 100 > int(outside)


def test_settings_of_the_environment_are_left_alone():
    _, kept, *_ = run(MALLOC_TRIM_THRESHOLD_='1000000')
    assert kept == 'False'
