# Copyright (c) addp_mm contributors. Apache-2.0.
"""One command, and everything on which its outputs depend."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from addp_mm.checkpoints.file_fingerprint import file_fingerprint


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: Short name, also of its log and stamp.
        title: Describes the step to the user.
        command: Arguments after ``python``. A first argument in ``tools/`` is a tool of this
            package.
        outputs: Files that the step writes.
        inputs: Files on which it depends. Defaults to (): none.
        after: Steps that it needs. Defaults to (): none.
        folder: Folder of this step only, emptied before it runs. Defaults to None.
        configs: Configs on which it depends, by their values. Defaults to (): none.
        facts: Other things on which it depends, as text. Defaults to (): none.
        resume: Options that continue the command after an interruption; () if the same command
            continues. Its folder is then kept. Defaults to None: it starts again.
    """

    name: str
    title: str
    command: tuple[str, ...]
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...] = ()
    after: tuple[Step, ...] = ()
    folder: Path | None = None
    configs: tuple[Path, ...] = ()
    facts: tuple[str, ...] = ()
    resume: tuple[str, ...] | None = None

    @property
    def shown(self) -> str:
        """The command as you type it."""
        return shlex.join(('python', *self.command))

    def key(self) -> str:
        """Fingerprint of the command and of everything on which it depends."""
        files = {*self.inputs, *(path for needed in self.after for path in needed.outputs)}
        parts = [self.shown, *sorted(f'{path} {file_fingerprint(path)}' for path in files), *self.facts]
        parts += [f'{path} {_config_fingerprint(path)}' for path in self.configs]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _config_fingerprint(path: Path) -> str:
    """SHA-256 of the values of a config, merged with its bases."""
    from mmengine.config import Config

    values = Config.fromfile(path).to_dict()
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
