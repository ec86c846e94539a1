# Copyright (c) addp_mm contributors. Apache-2.0.
"""An environment in which this checkout cannot be imported."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command, cwd: Path, **environ: str) -> str:
    """What the command printed on stdout; the test fails with all of its words where it fails."""
    inherited = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONHOME')}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**inherited, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **environ},
    )
    assert done.returncode == 0, f'{" ".join(map(str, command))}\n{done.stdout}\n{done.stderr}'
    return done.stdout


@dataclass
class Environment:
    """An environment that has the packages of this interpreter, addp_mm as installed into it, and no checkout."""

    python: Path
    workplace: Path

    def run(self, *arguments) -> str:
        return run(self.python, *arguments, cwd=self.workplace)

    def install(self, *arguments) -> None:
        run(
            sys.executable,
            '-m',
            'pip',
            '--python',
            self.python,
            'install',
            '--quiet',
            '--no-index',
            '--no-deps',
            '--no-build-isolation',
            '--ignore-installed',
            *arguments,
            cwd=self.workplace,
        )


def make_environment(folder: Path) -> Environment:
    venv.create(folder / 'env', with_pip=False, symlinks=os.name != 'nt')
    python = next(path for path in (folder / 'env/bin/python', folder / 'env/Scripts/python.exe') if path.exists())
    site_packages = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder).strip()
    # Folders named in a .pth file are searched last, and .pth files inside of them (an editable
    # addp_mm) are not read.
    known = [path for path in map(Path, sys.path) if path.is_dir() and path.name in ('site-packages', 'dist-packages')]
    known += [path for path in map(Path, sys.path) if (path / 'torch').is_dir() and path not in known]
    Path(site_packages, 'packages_of_the_tests.pth').write_text(''.join(f'{path}\n' for path in known))
    (folder / 'workplace').mkdir()
    return Environment(python, folder / 'workplace')
