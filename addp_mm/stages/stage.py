# Copyright (c) addp_mm contributors. Apache-2.0.
"""The files of one training in a work dir. They are its only state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_json, write_text
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.errors import UserError, first_few

RECORD, CONFIG, RUN, LAST = 'stage.json', 'config.py', 'run', 'last_checkpoint'
WEIGHTS = 'weights.safetensors'
#: The change of a stage whose own options are the same.
EARLIER = 'the images or an earlier stage'
# These options change the speed of a training or its end, but not its result.
_NOT_COMPARED = ('num_workers', 'persistent_workers', 'max_broken_share')


class StateError(UserError, RuntimeError):
    """A work dir does not belong to the options, is damaged or is in use."""


def read_json(path: Path, fix: str) -> Any:
    """Read a JSON file of the work dir.

    Args:
        path: The file.
        fix: Advice for a damaged file.

    Raises:
        FileNotFoundError: The file does not exist.
        StateError: The file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise StateError(f'{path} is damaged ({error}). {fix}') from error


def comparable(cfg: Any) -> Any:
    """A config as plain JSON values, without the options that do not change the result."""

    def compared(node: dict) -> dict:
        return {key: value for key, value in node.items() if key not in _NOT_COMPARED}

    return json.loads(json.dumps(cfg, default=str), object_hook=compared)


def differences(before: Any, now: Any, name: str = '') -> Iterator[str]:
    """Describe the differences of nested dicts and lists: ``'model.depth 3 -> 4'``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f'{name}.{key}' if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f'{name}.{index}')
    elif before != now:
        yield f'{name} {before} -> {now}'


class Stage:
    """One training in the work dir.

    Args:
        work_dir: Work dir of the tool.
        name: Name of the stage and of its folder.
        wanted: Config of the stage, as far as the user has chosen it.
        depends_on: Other fingerprints on which the result depends: the images, the earlier stage.
        written_by: The tool, for the first line of the config. Defaults to 'addp_mm'.
        own_config: How to train with an edited config, for an error. Defaults to 'give a copy of
            it to the tool'.
    """

    def __init__(
        self,
        work_dir: Path,
        name: str,
        wanted: Mapping,
        depends_on: Sequence[str],
        written_by: str = 'addp_mm',
        own_config: str = 'give a copy of it to the tool',
    ) -> None:
        self._written_by, self._own_config = written_by, own_config
        self.name, self.folder = name, work_dir / name
        self.config, self.weights = self.folder / CONFIG, self.folder / WEIGHTS
        self.run_dir = self.folder / RUN
        self.wanted = comparable(wanted)
        content = json.dumps([self.wanted, *depends_on], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self._restart = f'To train this stage and all later ones again, add --restart-from {name}'

    @property
    def is_prepared(self) -> bool:
        """Whether the config of the stage was written."""
        return (self.folder / RECORD).is_file()

    @property
    def fitted(self) -> dict:
        """Batch, memory and time, as :meth:`prepare` stored them.

        Raises:
            FileNotFoundError: The stage is not prepared.
            StateError: The record is damaged.
        """
        return self._record()['fitted']

    def _record(self) -> dict:
        return read_json(self.folder / RECORD, self._restart)

    def done(self) -> bool:
        """Whether the weights exist and belong to this config and these images.

        Raises:
            StateError: The weights are damaged.
        """
        if not self.weights.is_file():
            return False
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.weights), 'pt') as file:
                return (file.metadata() or {}).get('fingerprint') == self.fingerprint
        except SafetensorError as error:
            raise StateError(
                f'{self.weights} is damaged ({error}). Remove it: the same command exports it again from the last '
                f'checkpoint in {self.run_dir}. If there is no checkpoint: {self._restart}'
            ) from error

    def changes(self) -> list[str]:
        """How the options differ from those with which the stage was prepared; [] if they do not.

        Raises:
            StateError: The record is damaged.
        """
        record = self._record()
        if record['fingerprint'] == self.fingerprint:
            return []
        return list(differences(record['wanted'], self.wanted)) or [EARLIER]

    def check(self) -> None:
        """Compare a prepared stage with the options.

        Raises:
            StateError: The stage was prepared with other options, or its config was edited.
        """
        if other := self.changes():
            raise StateError(
                f'{self.folder} was started with other options: {first_few(other, 6, "; ")}. Use the same options to '
                f'continue. {self._restart}'
            )
        self.check_config()

    def check_config(self) -> None:
        """Check that nobody has edited the config.

        Raises:
            StateError: The config was edited, or is missing.
        """
        if not self.config.is_file() or file_fingerprint(self.config) != self._record()['config']:
            what = 'was edited' if self.config.is_file() else 'is missing'
            raise StateError(
                f'{self.config} {what}. To train with your own config, {self._own_config}. {self._restart}'
            )

    def prepare(self, cfg: Config, fitted: Mapping) -> None:
        """Write the config of the training, and a record of it.

        Args:
            cfg: The complete config.
            fitted: Batch, memory and time, for a later run to read.
        """
        write_text(
            self.config,
            f'# Written by {self._written_by}. To run this stage alone:\n# python tools/train.py {self.config} '
            f'--work-dir {self.run_dir} --resume auto\n{cfg.pretty_text}',
        )
        write_json(
            self.folder / RECORD,
            dict(
                fingerprint=self.fingerprint,
                config=file_fingerprint(self.config),
                fitted=dict(fitted),
                wanted=self.wanted,
            ),
        )

    def final_checkpoint(self, max_iters: int) -> Path | None:
        """The checkpoint of the last iteration; None if the training has not ended.

        CheckpointHook names a checkpoint in ``last_checkpoint`` when it is complete.
        """
        path, last = self.run_dir / f'iter_{max_iters}.pth', self.run_dir / LAST
        named = last.is_file() and Path(last.read_text().strip()).name == path.name
        return path if named and path.is_file() else None
