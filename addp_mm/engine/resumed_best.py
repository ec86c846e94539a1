# Copyright (c) addp_mm contributors. Apache-2.0.
"""Keep the best checkpoint of a work dir when a training resumes."""

from __future__ import annotations

import glob
import pickle
from pathlib import Path

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.engine.unwrap import find_checkpoint_hook


def keep_best(runner: Runner, message_hub: dict) -> None:
    """Correct what a checkpoint says about the best checkpoint so far.

    - The best checkpoint is looked for in the folder where this run saves: mmengine would delete
      that of the old folder after a copy of the work dir.
    - A better one in that folder, which a later iteration wrote, stays the best: mmengine only
      knows the best until the checkpoint that is resumed.

    Args:
        runner: The runner, before it loads the state.
        message_hub: ``message_hub`` of the checkpoint; changed in place.
    """
    hook = find_checkpoint_hook(runner)
    if hook is None or not hook.save_best or '://' in str(getattr(hook, 'out_dir', None)):
        return
    folder = _folder(hook, runner)
    known = message_hub.setdefault('runtime_info', {})
    for name in hook.key_indicators:
        end = '' if len(hook.key_indicators) == 1 else f'_{name}'
        score, path = f'best_score{end}', f'best_ckpt{end}'
        if path in known:
            known[path] = str(folder / Path(known[path]).name)
        better = hook.is_better_than.get(name)
        for file, value in _others(folder, name, score) if better else ():
            if score not in known or better(value, known[score]):
                message_hub.setdefault('resumed_keys', {}).update({score: True, path: True})
                known.update({score: value, path: str(file)})
                runner.logger.info(f'{file} with {name}={value:.4f} stays the best checkpoint')


def _folder(hook: CheckpointHook, runner: Runner) -> Path:
    """Folder of the checkpoints; mmengine sets the hook's own folder when training starts."""
    out_dir = getattr(hook, 'out_dir', None)
    if out_dir is None or Path(out_dir) == Path(runner.work_dir):
        return Path(runner.work_dir)
    name = Path(runner.work_dir).name
    return Path(out_dir) if Path(out_dir).name == name else Path(out_dir) / name


def _others(folder: Path, name: str, score: str) -> list[tuple[Path, float]]:
    """The best checkpoints in a folder, each with its score."""
    found = []
    # a name may have brackets: generation/fid[NAME]
    begin = glob.escape(f'best_{name.replace("/", "_")}_')
    for file in sorted(folder.glob(f'{begin}*.pth')) if folder.is_dir() else ():
        try:
            info = CheckpointLoader.load_checkpoint(str(file), map_location='cpu')['message_hub']['runtime_info']
            found.append((file, float(info[score])))
        except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError):
            continue  # an interrupted write, or a file of another training
    return found
