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
    """Return the command's stdout. If the command fails, the test fails with its output."""
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
    """An environment with the packages of this interpreter, and addp_mm if it is installed there.

    Args:
        python: Its interpreter.
        folder: Current folder of the commands.
    """

    python: Path
    folder: Path

    def run(self, *arguments) -> str:
        """Run the interpreter."""
        return run(self.python, *arguments, cwd=self.folder)

    def addp(self, *arguments) -> str:
        """Run the ``addp`` command that pip installed."""
        return run(self.python.with_name('addp'), *arguments, cwd=self.folder)

    def install(self, *arguments) -> None:
        """Install with pip, without network."""
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
            cwd=self.folder,
        )


def make_environment(folder: Path) -> Environment:
    """Create an environment below ``folder``."""
    venv.create(folder / 'env', with_pip=False, symlinks=os.name != 'nt')
    python = next(path for path in (folder / 'env/bin/python', folder / 'env/Scripts/python.exe') if path.exists())
    site_packages = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder).strip()
    # Python searches the folders of a .pth file last, and does not read .pth files in them, such as
    # that of an editable addp_mm.
    known = [path for path in map(Path, sys.path) if path.is_dir() and path.name in ('site-packages', 'dist-packages')]
    known += [path for path in map(Path, sys.path) if (path / 'torch').is_dir() and path not in known]
    Path(site_packages, 'packages_of_the_tests.pth').write_text(''.join(f'{path}\n' for path in known))
    (folder / 'work').mkdir()
    return Environment(python, folder / 'work')
