# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fuzz one entry point of the package, guided by coverage.

A finding is an error that is neither a UserError nor documented, a crash, 10 s without an answer,
or more than 2 GB of memory. After an error the run goes on; the first input for each line that
raises one is written to --out. The inputs that reach new code are kept there, too.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pydoc
import sys
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / 'tests/fuzz/corpus'
_OWN_MEMORY = 1000  # MB that Python, torch and the packages take


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('target', metavar='TARGET', help='name of the entry point; any other word prints all')
    parser.add_argument('--seconds', type=int, default=60, help='how long (default: 60)')
    parser.add_argument('--seed', type=int, default=1, help='seed of the mutations (default: 1)')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/fuzz', help='folder (default: work_dirs/fuzz)')
    parser.add_argument(
        '--keep', action='store_true', help=f'instead: minimise the inputs into {KEPT.relative_to(ROOT)}/TARGET'
    )
    return parser.parse_args(argv)


class Callback:
    """Runs a target on an input, and records each kind of finding once.

    Args:
        target: The target.
        folder: Folder of the inputs with findings.
    """

    def __init__(self, target, folder):
        self.target, self.folder = target, folder
        self.kinds = set()

    def __call__(self, data):
        """Run the target on one input."""
        from fuzz_targets import attempt

        try:
            attempt(self.target, data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if '/addp_mm/' in frame.filename] or frames
            kind = f'{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}'
            if kind not in self.kinds:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self.folder / kind.replace(' ', '_').replace(':', '_')
                file.write_bytes(data)
                print(f'FINDING {kind}: {str(error)[:200]}\n  {file}', flush=True)
            self.kinds.add(kind)


def fuzz(args):
    """Run the fuzzer; it ends the process."""
    import atheris

    names = importlib.import_module('fuzz_targets.names')
    packages = names.PACKAGES.get(args.target, ())
    with atheris.instrument_imports(include=['addp_mm', *packages], enable_loader_override=False):
        targets = importlib.import_module('fuzz_targets').load(args.target)
    for function in names.FUNCTIONS.get(args.target, ()):
        atheris.instrument_func(pydoc.locate(function))
    _quiet()
    folder = args.out / args.target
    corpus = folder / 'corpus'
    corpus.mkdir(parents=True, exist_ok=True)
    callback = Callback(targets, folder / 'findings')
    for number, content in enumerate(targets.seeds()):
        (corpus / f'seed_{number}').write_bytes(content)
        callback(content)  # the first call imports packages, which is not the time of an input
    words = folder / 'words'
    words.write_text(''.join(f'"{_escaped(word)}"\n' for word in targets.words))
    kept = [str(KEPT / args.target)] if (KEPT / args.target).is_dir() else []
    options = (
        *(f'-max_total_time={args.seconds}', f'-seed={args.seed}', f'-artifact_prefix={folder}/'),
        *([f'-dict={words}'] if targets.words else []),
        *('-timeout=10', f'-rss_limit_mb={2048 + _OWN_MEMORY}', '-max_len=4096', '-print_final_stats=1'),
    )
    atheris.Setup([sys.argv[0], *options, str(corpus), *kept], callback)
    atheris.Fuzz()


def _escaped(word):
    return ''.join(f'\\x{byte:02x}' for byte in word)


def keep(args):
    """Write a small set of inputs that reach the same lines as all inputs that were found."""
    from fuzz_targets import load
    from fuzz_targets.minimise import minimise

    _quiet()
    found = sorted((args.out / args.target / 'corpus').glob('*'))
    kept = sorted((KEPT / args.target).glob('*'))
    kept = [path for path in kept if not path.name.startswith('found_')]
    contents = [path.read_bytes() for path in [*kept, *found] if not path.name.startswith('seed_')]
    chosen = minimise(load(args.target), contents)
    folder = KEPT / args.target
    folder.mkdir(parents=True, exist_ok=True)
    for path in kept:
        path.unlink()
    for number, content in enumerate(chosen):
        (folder / f'{number:03}').write_bytes(content)
    print(f'{folder}: {len(chosen)} of {len(contents)} inputs, {sum(map(len, chosen))} bytes')


def _quiet():
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    names = importlib.import_module('fuzz_targets.names').PLACES
    if args.target not in names:
        sys.exit(f'TARGET must be one of {", ".join(names)}')
    keep(args) if args.keep else fuzz(args)


if __name__ == '__main__':
    main()
