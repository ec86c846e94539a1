# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run mmcv's own tests of its operators on addp_mm's operators, on the CPU.

    git clone https://github.com/open-mmlab/mmcv
    python .dev/mmcv_tests.py mmcv [--device cpu] [-k roi]

Needs an mmcv without compiled operators. The tests stay as they are, or, with ``--device``, are
copied with this device in place of CUDA: most of them run on CUDA only. Other options are those of
pytest.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONFTEST = """
import inspect
import addp_mm, mmcv.ops, mmcv.utils
import mmcv.ops.multi_scale_deform_attn as attention
# a test compares the operator with it
attention.multi_scale_deformable_attn_pytorch = inspect.unwrap(attention.multi_scale_deformable_attn_pytorch)
mmcv.utils.IS_MUSA_AVAILABLE = False  # mmcv 2.1 does not have it yet
mmcv.utils.IS_CUDA_AVAILABLE = {cuda} or mmcv.utils.IS_CUDA_AVAILABLE  # for the marks of the tests
"""
# what selects CUDA in these tests
REPLACED = (
    (r'torch\.cuda\.is_available\(\)', 'True'),
    (r'torch\.cuda\.synchronize\(\)', 'None'),
    (r'torch\.version\.cuda', "'13.0'"),
    (
        r'from torch\.cuda\.amp import autocast',
        "from functools import partial; autocast = partial(torch.autocast, '{device}', torch.float16)",
    ),
    (r"""['"]cuda(:\d)?['"]""", "'{device}'"),
    (r'\.cuda\(\s*\)', ".to('{device}')"),
)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line: own options, and those of pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('mmcv', type=Path, help="folder of mmcv's repository; its tests/ and nothing else is read")
    parser.add_argument('--device', help='device that takes the place of CUDA, such as cpu [none: tests as they are]')
    return parser.parse_known_args(argv)


def main() -> None:
    """Copy the tests, and run them in a process of their own; ends with its status."""
    args, options = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(folder, 'tests')
        shutil.copytree(args.mmcv / 'tests' / 'test_ops', tests / 'test_ops')
        shutil.copytree(args.mmcv / 'tests' / 'data', tests / 'data')
        (tests / 'conftest.py').write_text(CONFTEST.format(cuda=args.device is not None))
        for path in tests.glob('test_ops/test_*.py') if args.device else ():
            text = path.read_text()
            for pattern, by in REPLACED:
                text = re.sub(pattern, by.format(device=args.device), text)
            path.write_text(text)
        # test_onnx.py needs the package onnx, and tests the export of models
        options = ['-p', 'no:cacheprovider', '--ignore=tests/test_ops/test_onnx.py', *options]
        sys.exit(subprocess.run([sys.executable, '-m', 'pytest', 'tests/test_ops', *options], cwd=folder).returncode)


if __name__ == '__main__':
    main()
