# Copyright (c) addp_mm contributors. Apache-2.0.
import argparse
import io
import os
import pickle
import threading
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

import addp_mm  # noqa: F401
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file, safe_load

WEIGHTS = {'layer.weight': torch.arange(4.0).reshape(2, 2)}


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class RunsCodeThroughHistory:
    """Gets other objects through an attribute of an allowed class."""

    def __init__(self, *names):
        self.names = names

    def __reduce__(self):
        return getattr, (HistoryBuffer, *self.names)


class PlantsStatistic:
    """A history whose state puts functions into the table of the class."""

    def __reduce__(self):
        state = dict(
            _log_history=np.ones(1),
            _count_history=np.ones(1),
            max_length=9,
            statistics_methods={'mean': OrderedDict, 'planted': OrderedDict},
        )
        return HistoryBuffer, (), state


def saved(tmp_path, content, name='file.pth', **kwargs):
    path = tmp_path / name
    torch.save(content, path, **kwargs)
    return str(path)


def history(*values):
    buffer = HistoryBuffer()
    for value in values:
        buffer.update(value)
    return buffer


@pytest.mark.parametrize('zip_format', [True, False])
def test_code_is_refused_and_does_not_run(tmp_path, zip_format):
    mark = tmp_path / 'ran'
    path = saved(tmp_path, dict(state_dict=WEIGHTS, meta=RunsCode(mark)), _use_new_zipfile_serialization=zip_format)
    torch.load(path, weights_only=False)
    assert mark.exists(), 'without the check, this file must run code'
    mark.unlink()
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=r'file\.pth is refused.*posix\.system'):
            load(path)
    assert not mark.exists()


@pytest.mark.parametrize('name', ['__init__', '__class__', '__setstate__', 'register_statistics', 'update'])
def test_other_attributes_of_the_history_are_refused(tmp_path, name):
    path = saved(tmp_path, dict(state_dict=WEIGHTS, meta=RunsCodeThroughHistory(name)))
    assert torch.load(path, weights_only=False)['meta'] is not None
    with pytest.raises(CheckpointError, match=rf'file\.pth is refused.*builtins\.getattr.*{name}'):
        load_checkpoint_file(path)


def test_a_history_adds_no_functions(tmp_path):
    loaded = load_checkpoint_file(saved(tmp_path, dict(history=PlantsStatistic())))['history']
    assert type(loaded) is HistoryBuffer
    assert loaded.statistics('mean') == 1
    assert 'planted' not in HistoryBuffer._statistics_methods
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean


def test_the_contents_of_mmengines_and_the_published_files_are_allowed(tmp_path):
    content = dict(
        state_dict=WEIGHTS,
        args=argparse.Namespace(lr=1e-3, name='vit'),
        message_hub=dict(loss=history(1.0, 3.0)),
        array=np.arange(3),
        scalar=np.float64(0.5),
        table=np.array(['a', 'b']),
        part=slice(0, 3),
        dataset_meta=dict(classes=('cat', 'bus'), groups=ConfigDict(animals=ConfigDict(cat='felis'))),
    )
    with pytest.raises(pickle.UnpicklingError):
        torch.load(saved(tmp_path, content), weights_only=True)
    loaded = load_checkpoint_file(saved(tmp_path, content))
    assert loaded['args'].lr == 1e-3
    assert loaded['scalar'] == 0.5
    assert loaded['array'].tolist() == [0, 1, 2]
    assert loaded['dataset_meta'] == content['dataset_meta']
    buffer = loaded['message_hub']['loss']
    assert type(buffer) is HistoryBuffer
    assert buffer.mean() == 2
    assert buffer.current() == 3
    buffer.update(5.0)
    assert buffer.statistics('max') == 5
    again = load_checkpoint_file(saved(tmp_path, dict(loss=buffer), 'again.pth'))
    assert again['loss'].data[0].tolist() == [1.0, 3.0, 5.0]


def test_a_namespace_may_only_hold_data(tmp_path):
    mark = tmp_path / 'ran'
    for arguments, refused in (
        (argparse.Namespace(hook=RunsCode(mark)), r'posix\.system'),
        (argparse.Namespace(log=argparse.FileType('w')), r'argparse\.FileType'),
        (argparse.ArgumentParser, r'argparse\.ArgumentParser'),
    ):
        with pytest.raises(CheckpointError, match=rf'file\.pth is refused.*{refused}'):
            load_checkpoint_file(saved(tmp_path, dict(state_dict=WEIGHTS, args=arguments)))
    assert not mark.exists()


def test_only_the_users_allow_list_remains_after_loading(tmp_path):
    path = saved(tmp_path, dict(args=argparse.Namespace(), array=np.arange(2)))
    before = torch.serialization.get_safe_globals()
    load_checkpoint_file(path)
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with torch.serialization.safe_globals([argparse.Namespace]):
        load_checkpoint_file(path)
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_threads_leave_the_allow_list_as_it_was(tmp_path, monkeypatch):
    path = saved(tmp_path, WEIGHTS)
    before, original = set(torch.serialization.get_safe_globals()), torch.load
    first_is_inside, second_starts = threading.Event(), threading.Event()

    def load(*args, **kwargs):
        first_is_inside.set()
        second_starts.wait()
        time.sleep(0.05)  # without a lock, both are inside now
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', load)
    threads = [threading.Thread(target=safe_load, args=(path,)) for _ in range(2)]
    threads[0].start()
    first_is_inside.wait()
    threads[1].start()
    second_starts.set()
    for thread in threads:
        thread.join()
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_caller_cannot_switch_the_check_off(tmp_path):
    path = saved(tmp_path, dict(meta=RunsCode(tmp_path / 'ran')))
    with pytest.raises(CheckpointError):
        safe_load(path, weights_only=False)
    with pytest.raises(CheckpointError):
        safe_load(io.BytesIO(Path(path).read_bytes()))
    assert not (tmp_path / 'ran').exists()


def test_bad_files_are_checkpoint_errors(tmp_path):
    whole = Path(saved(tmp_path, dict(state_dict={'w': torch.zeros(1000)}))).read_bytes()
    legacy = Path(saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=False)).read_bytes()
    cases = {
        'empty.pth': (b'', 'empty.pth is empty'),
        'half.pth': (whole[: len(whole) // 2], 'half.pth is truncated'),
        'half_legacy.pth': (legacy[: len(legacy) // 2], 'half_legacy.pth'),
        'text.pth': (b'hello, this is no checkpoint', 'text.pth is not a checkpoint'),
        'page.pth': (b'<!DOCTYPE html><html>404</html>', 'page.pth is a web page'),
        'pointer.pth': (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        'pickle.pth': (pickle.dumps([1, 2]), 'pickle.pth'),
        'half.safetensors': (b'\x40\x00\x00\x00\x00\x00\x00\x00{"a"', 'half.safetensors is truncated'),
        'none.safetensors': (b'hello', 'none.safetensors is truncated or not'),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint_file(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as archive:
        archive.writestr('readme.txt', 'no weights')
    with pytest.raises(CheckpointError, match=r'other\.zip'):
        load_checkpoint_file(tmp_path / 'other.zip')
    with pytest.raises(CheckpointError, match='is a folder'):
        load_checkpoint_file(tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        load_checkpoint_file(tmp_path / 'nowhere.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        load_checkpoint_file(saved(tmp_path, [1, 2]))


def test_a_damaged_pickle_is_a_checkpoint_error(tmp_path):
    content = bytearray(Path(saved(tmp_path, dict(state_dict=WEIGHTS))).read_bytes())
    start = content.index(b'data.pkl') + 60
    content[start : start + 40] = bytes(40)
    (tmp_path / 'flipped.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match='flipped.pth'):
        load_checkpoint_file(tmp_path / 'flipped.pth')


def test_every_loader_reads_safetensors(tmp_path):
    path = str(tmp_path / 'weights.safetensors')
    save_file(WEIGHTS, path, metadata=dict(version='1'))
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        loaded = load(path)
        assert torch.equal(loaded['state_dict']['layer.weight'], WEIGHTS['layer.weight'])
        assert loaded['meta'] == {'version': '1'}


def test_shipped_files_have_a_scheme(tmp_path, monkeypatch):
    monkeypatch.setattr('addp_mm.checkpoints.reading.ASSETS', tmp_path)
    save_file(WEIGHTS, tmp_path / 'nano.safetensors')
    assert 'layer.weight' in CheckpointLoader.load_checkpoint('addp_mm://nano.safetensors')['state_dict']
    for name in ('mano.safetensors', '../etc/passwd'):
        with pytest.raises(FileNotFoundError, match=r'ships no .*nano\.safetensors'):
            load_checkpoint_file(f'addp_mm://{name}')


def test_downloads_are_checked(tmp_path, monkeypatch):
    source = saved(tmp_path, dict(state_dict=WEIGHTS, meta=RunsCode(tmp_path / 'ran')))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    monkeypatch.setattr('addp_mm.checkpoints.download.download', lambda url, path, *a, **k: os.link(source, path))
    for url in ('http://example.org/w.pth', 'https://example.org/w.pth'):
        with pytest.raises(CheckpointError, match=r'w\.pth is refused'):
            CheckpointLoader.load_checkpoint(url)
    from mmengine.runner.checkpoint import load_url

    with pytest.raises(CheckpointError):
        load_url('https://example.org/w.pth')
    assert not (tmp_path / 'ran').exists()


def test_files_by_address(tmp_path):
    path = Path(saved(tmp_path, WEIGHTS, 'a b.pth'))
    for address in (path.as_uri(), path.as_uri().replace('file://', 'file://localhost')):
        assert 'a%20b' in address
        assert CheckpointLoader.load_checkpoint(address).keys() == WEIGHTS.keys()
    with pytest.raises(FileNotFoundError, match=r'/none\.pth does not exist'):
        load_checkpoint_file((tmp_path / 'none.pth').as_uri())


def test_a_relative_path_is_looked_up_in_the_working_directory(tmp_path, monkeypatch):
    saved(tmp_path, WEIGHTS, 'here.pth')
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint_file('here.pth').keys() == WEIGHTS.keys()
    (tmp_path / 'sub').mkdir()
    monkeypatch.chdir(tmp_path / 'sub')
    with pytest.raises(FileNotFoundError) as caught:
        CheckpointLoader.load_checkpoint('here.pth')
    assert str(caught.value) == (
        f'here.pth does not exist in the working directory {tmp_path / "sub"}. Check the path of the checkpoint.'
    )


def test_an_address_that_cannot_be_read():
    words = r'htps:// cannot be read here.*file://, addp_mm:// and hf://.*https://'
    with pytest.raises(CheckpointError, match=words):
        CheckpointLoader.load_checkpoint('htps://example.org/a.pth')


def test_mirrors_and_forks_get_the_same_reader(tmp_path, monkeypatch):
    from types import ModuleType

    from mmengine.runner import checkpoint

    from addp_mm.checkpoints.loaders import register_checkpoint_loaders

    path = saved(tmp_path, dict(meta=RunsCode(tmp_path / 'ran')), 'mirror.pth')
    monkeypatch.setattr(checkpoint, 'get_external_models', lambda: dict(mirror=path))
    with pytest.raises(CheckpointError, match=r'mirror\.pth is refused'):
        CheckpointLoader.load_checkpoint('openmmlab://mirror')
    fork = ModuleType('fork')
    fork.CheckpointLoader = checkpoint.CheckpointLoader
    fork._safe_torch_load = lambda file, **_: torch.load(file, weights_only=False)
    register_checkpoint_loaders(fork)
    for load in (fork._safe_torch_load, lambda file: fork.torch.load(file, weights_only=False)):
        with pytest.raises(CheckpointError):
            load(path)
    assert fork.torch.Tensor is torch.Tensor
    assert not (tmp_path / 'ran').exists()


def runner(tmp_path, name, **kwargs):
    from mmengine.model import BaseModel

    class Toy(BaseModel):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 1)

        def forward(self, inputs, mode='tensor'):
            return dict(loss=self.fc(inputs).square().mean())

    data = [dict(inputs=torch.tensor([i, 1.0])) for i in range(4)]
    return Runner(
        Toy(),
        str(tmp_path / name),
        experiment_name=f'{tmp_path.name}_{name}',
        train_dataloader=dict(
            batch_size=2,
            dataset=data,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=kwargs.pop('epochs')),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_scope='mmengine',
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        cfg=Config(),
        **kwargs,
    )


def test_mmengine_resumes_from_its_own_checkpoint(tmp_path):
    first = runner(tmp_path, 'run', epochs=1)
    first.train()
    path = str(tmp_path / 'run' / 'epoch_1.pth')
    with pytest.raises(pickle.UnpicklingError, match='Unsupported'):
        torch.load(path, weights_only=True)
    second = runner(tmp_path, 'run', epochs=2, resume=True)
    second.train()
    assert second.epoch == 2
    assert second.iter == 4
    assert len(MessageHub.get_current_instance().get_scalar('train/loss').data[0]) == 4
    third = runner(tmp_path, 'other', epochs=1, load_from=path)
    third.load_or_resume()
    assert torch.equal(third.model.fc.weight, first.model.fc.weight)


def test_runner_refuses_a_checkpoint_with_code(tmp_path):
    path = saved(tmp_path, dict(state_dict=WEIGHTS, meta=RunsCode(tmp_path / 'ran')))
    for resume in (True, False):
        with pytest.raises(CheckpointError, match='is refused'):
            runner(tmp_path, f'run{resume}', epochs=1, load_from=path, resume=resume).train()
    assert not (tmp_path / 'ran').exists()
