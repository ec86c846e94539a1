# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest
import torch
from mmengine.config import Config

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.engine.latest_checkpoint import latest_checkpoint
from addp_mm.engine.runner_cfg import set_resume


@pytest.fixture
def save(tmp_path):
    """Save checkpoints by their names; the first one is named in ``last_checkpoint``."""

    def save(*names):
        for name in names:
            torch.save(dict(state_dict=dict(w=torch.arange(300.0)), meta={}), tmp_path / name)
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / names[0]))
        return [tmp_path / name for name in names]

    return save


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([7.0, 8.0]).numpy().tobytes()) + 2] ^= 16
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b'')


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    'harm, words',
    [
        (flip, 'iter_12.pth is damaged: its record iter_12/data/0 cannot be trusted'),
        (cut, 'iter_12.pth is truncated'),
        (empty, 'iter_12.pth is empty'),
        (remove, 'names {folder}/iter_12.pth'),
    ],
)
def test_the_newest_whole_checkpoint_is_used_and_the_reason_is_said(tmp_path, save, capsys, harm, words):
    last, *_ = save('iter_12.pth', 'iter_8.pth', 'iter_4.pth', 'best_acc_iter_8.pth')
    assert latest_checkpoint(str(tmp_path)) == str(last)
    assert capsys.readouterr().out == ''
    harm(last)
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_8.pth')
    said = capsys.readouterr().out
    assert words.format(folder=tmp_path) in said
    assert f'; training continues from {tmp_path / "iter_8.pth"}' in said


def test_several_damaged_ones_are_all_named(tmp_path, save, capsys):
    paths = save('epoch_3.pth', 'epoch_2.pth', 'epoch_1.pth', 'best_acc_epoch_2.pth')
    for path in paths[:3]:
        cut(path)
    assert latest_checkpoint(str(tmp_path)) == str(paths[3])
    assert capsys.readouterr().out.count('is truncated') == 3
    cut(paths[3])
    with pytest.raises(CheckpointError, match=r'has no checkpoint that can be resumed: .*epoch_3\.pth is trunc.*begin'):
        latest_checkpoint(str(tmp_path))


def test_a_checkpoint_of_an_earlier_training_is_used_last(tmp_path, save):
    last, *_ = save('iter_12.pth', 'iter_100.pth', 'iter_8.pth')
    cut(last)
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_8.pth')
    remove(tmp_path / 'iter_8.pth')
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_100.pth')


def test_checkpoints_in_another_folder_are_found_beside_the_named_one(tmp_path, save):
    last, before = save('iter_12.pth', 'iter_8.pth')
    (tmp_path / 'work').mkdir()
    (tmp_path / 'last_checkpoint').rename(tmp_path / 'work/last_checkpoint')
    cut(last)
    assert latest_checkpoint(str(tmp_path / 'work')) == str(before)


@pytest.mark.parametrize('name', ['a.weight', 'a.cls_token'])
@pytest.mark.parametrize('key', ['state_dict', 'ema_state_dict'])
def test_a_checkpoint_with_nan_weights_is_not_used(tmp_path, save, capsys, key, name):
    last, before, _ = save('iter_12.pth', 'iter_8.pth', 'iter_4.pth')
    mask = torch.full((2,), -torch.inf)  # a buffer may be infinite
    torch.save({'state_dict': dict(mask=mask), 'meta': {}, key: {'mask': mask, 'a.weight': torch.ones(2)}}, before)
    torch.save({'state_dict': {}, 'meta': {}, key: {f'module.{name}': torch.tensor([1.0, torch.nan])}}, last)
    assert latest_checkpoint(str(tmp_path)) == str(before)
    said = capsys.readouterr().out
    assert f'{last} has weights that are NaN or Inf: module.{name} (1 of 2 values)' in said
    assert f'; training continues from {before}' in said
    cfg = Config(dict(work_dir=str(tmp_path)))
    set_resume(cfg, str(last))  # PreflightHook refuses a path that is given
    assert cfg.load_from == str(last)


@pytest.mark.parametrize('key', ['--resume', 'load_from'])
def test_a_damaged_path_is_refused_and_the_newest_whole_one_is_named(tmp_path, save, key):
    last, before, _ = save('iter_12.pth', 'iter_8.pth', 'iter_4.pth')
    cfg = Config(dict(work_dir=str(tmp_path)))
    given = str(last)
    if key == 'load_from':
        cfg.merge_from_dict(dict(resume=True, load_from=given))
        given = None
    set_resume(cfg, given)
    flip(last)
    with pytest.raises(CheckpointError, match=rf'^{key} \S+iter_12\.pth is damaged.* beside it is {before}$'):
        set_resume(cfg, given)
    for path in tmp_path.glob('iter_*'):
        empty(path)
    with pytest.raises(CheckpointError, match=r'iter_12\.pth is empty.* No other checkpoint beside it is whole'):
        set_resume(cfg, given)
