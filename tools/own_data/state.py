# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a work dir holds of each stage: options, fingerprints and results. There is no other memory of a training."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from addp_mm.errors import UserError
from addp_mm.wording import first_few
from own_data.stages import WEIGHTS

RECORD, CONFIG, RUN, LATEST = 'stage.json', 'config.py', 'run', 'last_checkpoint'
# how fast it goes, and when it gives up, not what comes out
_NOT_COMPARED = tuple(f'{loader}.{key}' for loader in ('train_dataloader', 'val_dataloader')
                      for key in ('num_workers', 'persistent_workers', 'dataset.max_broken_share'))


class StateError(UserError, RuntimeError):
    """A work dir that does not fit the options, or is in use."""


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_text(text)
    os.replace(partial, path)


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
    """

    def __init__(self, work_dir: Path, name: str, wanted: Mapping, given: Sequence[str]) -> None:
        self.name, self.folder = name, work_dir / name
        self.wanted = comparable(wanted)
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
        """What was written when the stage was prepared; None before that."""
        try:
            return json.loads((self.folder / RECORD).read_text())
        except FileNotFoundError:
            return None

    def done(self) -> bool:
        """Whether its weights are there, and are those of this config and these images."""
        if not self.weights.is_file():
            return False
        from safetensors import safe_open
        with safe_open(str(self.weights), 'pt') as file:
            return (file.metadata() or {}).get('fingerprint') == self.fingerprint

    def check(self) -> None:
        """Refuse to go on with what was begun with other options, or whose config was edited since.

        Raises:
            StateError: In words, what differs and what to do.
        """
        record = self.record()
        if record is None:
            return
        anew = f'--restart-from {self.name} begins this stage and all later ones anew'
        if record['fingerprint'] != self.fingerprint:
            other = list(differences(record['wanted'], self.wanted)) or ['the images, or a stage before']
            raise StateError(f'{self.folder} was begun with other options: {first_few(other, 6, "; ")}. Give the same '
                             f'ones to go on; {anew}')
        text = self.config.read_text() if self.config.is_file() else None
        if text is None or hashlib.sha256(text.encode()).hexdigest() != record['config']:
            what = 'is gone' if text is None else 'was edited since'
            raise StateError(f'{self.config} {what}. Train with it by tools/train.py alone; or copy it, give the copy '
                             f'as --{self.name}-config, and {anew}')

    def prepare(self, cfg: Any, fitted: Mapping) -> None:
        """Write the config to train with, and what it was made from.

        Args:
            cfg: The complete :class:`mmengine.Config`.
            fitted: What was found out about memory and time, for a later run to read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, f'# Written by tools/pretrain_from_folder.py. Alone:\n# python tools/train.py '
                                      f'{self.config} --work-dir {self.run_dir} --resume auto\n{cfg.pretty_text}')
        digest = hashlib.sha256(self.config.read_bytes()).hexdigest()
        write_atomically(self.folder / RECORD, json.dumps(
            dict(fingerprint=self.fingerprint, config=digest, fitted=dict(fitted), wanted=self.wanted), indent=1))

    def final_checkpoint(self, max_iters: int) -> Path | None:
        """The checkpoint of the last iteration, if training has come to its end.

        That is when ``last_checkpoint`` names it: mmengine writes this after the checkpoint, which a kill may have cut.
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
