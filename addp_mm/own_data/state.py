# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a work dir holds of each stage: options, fingerprints and results. There is no other memory of a training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from addp_mm.errors import UserError, first_few
from addp_mm.own_data.stages import WEIGHTS

RECORD, CONFIG, RUN, LATEST = 'stage.json', 'config.py', 'run', 'last_checkpoint'
# how fast it goes, and when it gives up, not what comes out
_NOT_COMPARED = tuple(
    f'{loader}.{key}'
    for loader in ('train_dataloader', 'val_dataloader')
    for key in ('num_workers', 'persistent_workers', 'dataset.max_broken_share')
)


class StateError(UserError, RuntimeError):
    """A work dir that does not fit the options, or is in use."""


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    # names of files need not be Unicode; Python reads what stands for them in a string
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')
    os.replace(partial, path)


def read_json(path: Path, mend: str) -> Any:
    """What a file of the work dir says.

    Args:
        path: The file.
        mend: What to do where it is damaged.

    Raises:
        FileNotFoundError: It is not there.
        StateError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise StateError(f'{path} is damaged ({error}). {mend}') from error


def moved(value: Any, source: Path, target: Path) -> Any:
    """A nest of dicts and lists in which paths inside the folder ``source`` are those of the folder ``target``."""
    if isinstance(value, dict):
        return {key: moved(item, source, target) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, source, target) for item in value]
    inside = isinstance(value, str) and value.startswith(f'{source}{os.sep}')
    return f'{target}{value[len(str(source)) :]}' if inside else value


def comparable(cfg: Mapping) -> dict:
    """A config as JSON knows it, without what does not change the result."""
    plain = json.loads(json.dumps(cfg, default=str))
    for name in _NOT_COMPARED:
        node, keys = plain, name.split('.')
        for key in keys[:-1]:
            node = node.get(key) or {}
        node.pop(keys[-1], None)
    return plain


def differences(before: Any, now: Any, name: str = '') -> Iterator[str]:
    """In words, where two nests of dicts and lists differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f'{name}.{key}' if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f'{name}.{index}')
    elif before != now:
        yield f'{name} {before} -> {now}'


class Stage:
    """Files of one training in the work dir.

    Args:
        work_dir: Of the tool.
        name: 'tokenizer', 'predictor' or 'addp'.
        wanted: Its config before batches are fitted.
        given: What else its result depends on: fingerprints of the images and of the stage before.
        begun_at: Where the work dir was when it was begun; the same place by default. What is
            compared has the paths that its files had there.
    """

    def __init__(
        self, work_dir: Path, name: str, wanted: Mapping, given: Sequence[str], begun_at: Path | None = None
    ) -> None:
        self.name, self.work_dir, self.folder = name, work_dir, work_dir / name
        self.begun_at = begun_at or work_dir
        self.wanted = moved(comparable(wanted), work_dir, self.begun_at)
        content = json.dumps([self.wanted, *given], sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    @property
    def run_dir(self) -> Path:
        """Work dir of tools/train.py."""
        return self.folder / RUN

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def record(self) -> dict | None:
        """What was written when the stage was prepared; None before that.

        Raises:
            StateError: It is damaged.
        """
        try:
            return read_json(self.folder / RECORD, self._anew)
        except FileNotFoundError:
            return None

    @property
    def _anew(self) -> str:
        return f'--restart-from {self.name} begins this stage and all later ones anew'

    def done(self) -> bool:
        """Whether its weights are there, and are those of this config and these images.

        Raises:
            StateError: They are damaged.
        """
        if not self.weights.is_file():
            return False
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.weights), 'pt') as file:
                return (file.metadata() or {}).get('fingerprint') == self.fingerprint
        except SafetensorError as error:
            raise StateError(
                f'{self.weights} is damaged ({error}). Remove it to have it written again from the last '
                f'checkpoint in {self.run_dir}; where there is none, {self._anew}'
            ) from error

    def check(self) -> None:
        """Refuse to go on with what was begun with other options, or whose config was edited since.

        Raises:
            StateError: In words, what differs and what to do.
        """
        record = self.record()
        if record is None:
            return
        if record['fingerprint'] != self.fingerprint:
            other = list(differences(record['wanted'], self.wanted)) or ['the images, or a stage before']
            raise StateError(
                f'{self.folder} was begun with other options: {first_few(other, 6, "; ")}. Give the same '
                f'ones to go on; {self._anew}'
            )
        text = self.config.read_text() if self.config.is_file() else None
        if text is None or hashlib.sha256(text.encode()).hexdigest() != record['config']:
            what = 'is gone' if text is None else 'was edited since'
            raise StateError(
                f'{self.config} {what}. Train with it by tools/train.py alone; or copy it, give the copy '
                f'as --{self.name}-config, and {self._anew}'
            )
        self._follow(record, text)

    def _follow(self, record: Mapping, text: str) -> None:
        """Let the config of a work dir that was moved name the files of the work dir where they are now."""
        before = record.get('place', str(self.begun_at))
        if before != str(self.work_dir):
            # as they stand between the quotes of a string
            source, target = (repr(f'{place}{os.sep}')[1:-1] for place in (before, self.work_dir))
            self._write(text.replace(source, target), record['fitted'])

    def prepare(self, cfg: Any, fitted: Mapping) -> None:
        """Write the config to train with, and what it was made from.

        Args:
            cfg: The complete :class:`mmengine.Config`.
            fitted: What was found out about memory and time, for a later run to read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(
            f'# Written by tools/pretrain_from_folder.py. Alone:\n# python tools/train.py {self.config} '
            f'--work-dir {self.run_dir} --resume auto\n{cfg.pretty_text}',
            fitted,
        )

    def _write(self, text: str, fitted: Mapping) -> None:
        write_atomically(self.config, text)
        digest = hashlib.sha256(self.config.read_bytes()).hexdigest()
        write_atomically(
            self.folder / RECORD,
            json.dumps(
                dict(
                    fingerprint=self.fingerprint,
                    config=digest,
                    fitted=dict(fitted),
                    wanted=self.wanted,
                    place=str(self.work_dir),
                ),
                indent=1,
            ),
        )

    def final_checkpoint(self, max_iters: int) -> Path | None:
        """The checkpoint of the last iteration, if training has come to its end.

        That is when ``last_checkpoint`` names it: mmengine writes this after the checkpoint, which
        a kill may have cut.
        """
        path, latest = self.run_dir / f'iter_{max_iters}.pth', self.run_dir / LATEST
        named = latest.is_file() and Path(latest.read_text().strip()).name == path.name
        return path if named and path.is_file() else None

    def mend_latest(self) -> None:
        """Let an empty ``last_checkpoint`` name the newest one, which is whole: a kill came before the name."""
        latest = self.run_dir / LATEST
        if latest.is_file() and not latest.read_text().strip():
            there = sorted(self.run_dir.glob('iter_*.pth'), key=lambda path: int(path.stem.partition('_')[2]))
            if there:
                write_atomically(latest, str(there[-1]))
            else:
                latest.unlink()
