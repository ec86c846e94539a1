# Copyright (c) addp_mm contributors. Apache-2.0.
"""The work dir of tools/pretrain_from_folder.py: its lock, its images, restarts and its stages."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch


def work_dir(path):
    from addp_mm.own_data.work_dir import WorkDir

    return WorkDir(path)


def claimed(path, **about):
    folder = work_dir(path)
    folder.claim(about)
    folder.close()


def test_a_work_dir_belongs_to_one_run_at_a_time_and_to_one_set_of_images(tmp_path):
    from addp_mm.folder_lock import FolderInUseError
    from addp_mm.stages.stage import StateError

    folder = work_dir(tmp_path)
    with pytest.raises(FolderInUseError, match='is in use by another run, .* Wait for it, or end it'):
        work_dir(tmp_path)
    folder.claim(dict(images='a', channels=3, inspected=dict(mean=[0.5])))
    # The statistics change if a broken image is replaced.
    folder.check_images(dict(images='a', channels=3, inspected=dict(mean=[0.4])))
    with pytest.raises(StateError, match='channels 3 -> 1'):
        folder.check_images(dict(images='a', channels=1))
    folder.close()


@pytest.mark.slow
def test_processes_that_outlive_their_tool_keep_the_lock(tmp_path):
    from addp_mm.folder_lock import FolderInUseError

    (tmp_path / 'tools.py').write_text(
        'import sys\nfrom pathlib import Path\nfrom addp_mm.stages.commands import Commands\n'
        'from addp_mm.own_data.work_dir import WorkDir\nfolder = WorkDir(Path(sys.argv[1]))\nfolder.claim({})\n'
        'code = "import os, time; print(os.getpid()); time.sleep(600)"\n'
        'Commands(pass_fds=[folder.lock.fileno()])([sys.executable, "-c", code], folder.path / "log")\n'
    )
    tool = subprocess.Popen(
        [sys.executable, tmp_path / 'tools.py', tmp_path / 'work'],
        stdout=subprocess.DEVNULL,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    log, until = tmp_path / 'work/log', time.monotonic() + 120
    while not log.is_file() or not log.read_text().endswith('\n'):
        assert tool.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    tool.kill()
    tool.wait()
    child = int(log.read_text())
    try:
        with pytest.raises(FolderInUseError, match='in use by another run, or by a command of a run that was killed'):
            work_dir(tmp_path / 'work')
    finally:
        os.kill(child, 9)
    until = time.monotonic() + 60
    while Path(f'/proc/{child}').exists() and time.monotonic() < until:
        time.sleep(0.05)
    work_dir(tmp_path / 'work').close()


def test_a_folder_with_other_files_is_unchanged(tmp_path):
    from addp_mm.stages.stage import StateError

    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(StateError, match=r'contains thesis.tex and is not a work dir'):
        work_dir(tmp_path)
    assert os.listdir(tmp_path) == ['thesis.tex']


def test_a_start_that_fails_leaves_at_most_the_list_of_images(tmp_path):
    work_dir(tmp_path / 'made').close()
    assert not (tmp_path / 'made').exists()
    folder = work_dir(tmp_path / 'made')
    folder.index.write_text('')
    folder.close()
    # The list of images is kept, because listing takes time.
    assert os.listdir(tmp_path / 'made') == ['images.index']
    work_dir(tmp_path / 'made').close()


def test_a_work_dir_is_restarted_with_other_images(tmp_path):
    from addp_mm.stages.stage import StateError

    claimed(tmp_path, images='a', channels=3)
    for part in ('tokenizer/run', 'tokens', 'predictor', 'addp'):
        (tmp_path / part).mkdir(parents=True)
    for name in ('images.index', 'trial.json', 'report.html', 'tokenizer/run/iter_3.pth'):
        (tmp_path / name).write_text('old')
    folder = work_dir(tmp_path)
    folder.new_index().write_text('new')
    folder.restart('predictor', dict(images='a', channels=3))
    assert (tmp_path / 'tokens').is_dir()
    assert not (tmp_path / 'predictor').exists()
    assert folder.index.read_text() == 'old'
    folder.restart('tokenizer', dict(images='b', channels=1))
    folder.close()
    assert sorted(os.listdir(tmp_path)) == ['.lock', 'images.index', 'own_data.json', 'report.html', 'trial.json']
    assert folder.index.read_text() == 'new'
    assert folder.begun == dict(images='b', channels=1, work_dir=str(tmp_path))
    with pytest.raises(StateError, match='images b -> a'):
        folder.check_images(dict(images='a', channels=1))


def test_a_new_list_of_images_is_removed_if_the_restart_is_refused(tmp_path):
    claimed(tmp_path, images='a')
    folder = work_dir(tmp_path)
    folder.new_index().write_text('new')
    folder.close()
    assert sorted(os.listdir(tmp_path)) == ['.lock', 'own_data.json']


def test_a_stage_is_trained_when_its_last_checkpoint_is_whole(tmp_path):
    from addp_mm.stages.stage import Stage

    stage = Stage(tmp_path, 'tokenizer', {}, [])
    stage.run_dir.mkdir(parents=True)
    before, last = stage.run_dir / 'iter_5.pth', stage.run_dir / 'iter_10.pth'
    latest = stage.run_dir / 'last_checkpoint'
    torch.save(dict(iter=5), before)
    latest.write_text(str(before))
    torch.save(dict(iter=10), last)
    os.truncate(last, last.stat().st_size // 2)
    assert stage.final_checkpoint(10) is None
    latest.write_text(f'{last}\n')
    assert stage.final_checkpoint(10) == last
    last.unlink()
    assert stage.final_checkpoint(10) is None


def test_damaged_metrics_are_named(tmp_path):
    from addp_mm.own_data.measure import measured
    from addp_mm.stages.stage import Stage, StateError

    stage = Stage(tmp_path, 'tokenizer', {}, [])
    assert measured(stage) == []
    stage.folder.mkdir()
    (stage.folder / 'metrics.json').write_text('{"reconstruction/psnr": 2')
    with pytest.raises(
        StateError, match=r'tokenizer/metrics\.json is damaged .*Remove it: the same command measures the stage again'
    ):
        measured(stage)


def test_incomplete_lines_of_a_log_are_skipped(tmp_path):
    from addp_mm.report.logs import read_curve
    from addp_mm.stages.progress import latest, training_seconds
    from addp_mm.stages.stage import Stage

    stage = Stage(tmp_path, 'predictor', {}, [])
    log = stage.run_dir / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [json.dumps(dict(iter=step, time=1.0, loss=1 / step)) for step in (10, 20)]
    log.write_text(f'{lines[0]}\n{{"iter": 15, "lo\n{lines[1]}\n{{"iter": 3, "data_ti')
    assert read_curve(stage.run_dir) == [(10, 0.1), (20, 0.05)]
    assert latest(stage.run_dir) == dict(iter=20, time=1.0, loss=0.05)
    assert training_seconds(stage.run_dir) == 20
    resumed = stage.run_dir / '20260102/vis_data/scalars.json'
    resumed.parent.mkdir(parents=True)
    resumed.write_text(''.join(json.dumps(dict(iter=step, time=2.0)) + '\n' for step in (30, 40)))
    assert training_seconds(stage.run_dir) == 20 + 2 * 20


def test_the_report_names_broken_images_and_the_batch(tmp_path):
    from mmengine.config import Config

    from addp_mm.own_data.page import _broken, _row
    from addp_mm.stages.stage import Stage

    root = tmp_path / 'photos'
    for stage in ('tokenizer', 'addp'):
        (tmp_path / stage / 'run').mkdir(parents=True)
        (tmp_path / stage / 'run/broken_images_images_train.txt').write_text(
            f'"{root}/a.png"\t{root}/a.png: truncated\n'
        )
    (tmp_path / 'tokens').mkdir()
    broken = [dict(index=0, name=name, reason='no image') for name in ('b/c.png', 'a.png')]
    about = dict.fromkeys(['tokenizer', 'images', 'views'], {})
    about.update(shard=dict(index=0, of=1), ids=dict(shape=[9, 1, 16], dtype='uint16'), done=9)
    (tmp_path / 'tokens/tokens.json').write_text(json.dumps(dict(about, format=2, broken=broken)))
    assert _broken(tmp_path, str(root)) == {f'{root}/a.png': 'truncated', f'{root}/b/c.png': 'no image'}
    stage = Stage(tmp_path, 'addp', {}, [])
    stage.prepare(Config(), dict(batch=4, accumulated=1, max_iters=2000, parameters=9))
    assert _row(stage)[:3] == ['ADDP', '2,000', '4']


@pytest.mark.parametrize('fitted, batch', [(5, 5), (200, 64)])
def test_ids_are_written_with_progress_in_a_batch_that_fits(tmp_path, fitted, batch):
    from mmengine.config import Config

    from addp_mm.own_data import tokens
    from addp_mm.own_data.images import Found
    from addp_mm.own_data.stages import Request
    from addp_mm.stages.commands import Commands
    from addp_mm.stages.progress import Clock
    from addp_mm.stages.stage import Stage

    request = Request(Found({}, 200, 'abc', 3, [0.4] * 3, [0.2] * 3, 300, 50), 32, 'nano', tmp_path)
    tokenizer = Stage(tmp_path, 'tokenizer', {}, [])
    tokenizer.prepare(Config(), dict(batch=fitted, seconds=6.0))
    clock = Clock(dict(tokenizer=0.0, tokens=0.0, predictor=60.0))
    commands, lines = [], []

    def execute(command, log, progress):
        commands.append(command)
        lines.append(progress())
        for done in (49, 98):
            (tmp_path / 'tokens').mkdir(exist_ok=True)
            (tmp_path / 'tokens/tokens.json').write_text(json.dumps(dict(done=done, ids=dict(shape=[196, 8, 16]))))
            lines.append(progress())
        assert clock.expected['tokens'] < 60
        return 0

    runner = Commands(execute, say=lambda line: None)
    for _ in range(2):
        tokens.tokenize(request, tokenizer, 0.01, runner, clock)
    (command,) = commands
    assert command[command.index('--batch-size') + 1] == str(batch)
    assert lines[0] is None
    assert lines[1].startswith('tokens: 49 of 196 images (25%); this stage ends about')
    assert clock.all_left() == 60
    assert tokens.are_written(request, tokenizer)


def test_a_moved_work_dir_is_refused(tmp_path):
    from addp_mm.stages.stage import StateError

    claimed(tmp_path / 'before', images='a', channels=3)
    (tmp_path / 'before').rename(tmp_path / 'after')
    folder = work_dir(tmp_path / 'after')
    with pytest.raises(StateError, match='after was moved from .*before, .* Move it back, or add --restart-from'):
        folder.check_images(dict(images='a', channels=3))
    folder.restart('tokenizer', dict(images='a', channels=3))
    folder.check_images(dict(images='a', channels=3))
    folder.close()
