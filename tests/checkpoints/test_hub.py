# Copyright (c) addp_mm contributors. Apache-2.0.
"""hf:// addresses, read from a cache with the layout of huggingface_hub, without a network."""

import os
import socket
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file
from torch import nn

import addp_mm  # noqa: F401
from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from addp_mm.checkpoints.hub import download_from_hub, parse_address
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.models.pretrained import Pretrained

MAIN, OLD = 'a' * 40, 'b' * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address, *_):
        raise OSError(f'a test tried to reach {address}')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', lambda host, *_, **__: refuse(None, host))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An offline cache with owner/repo: net.pth and sub/net.safetensors; v0 has net.pth only."""
    folder = tmp_path / 'hub' / 'models--owner--repo'
    put(folder, MAIN, 'net.pth', lambda path: torch.save(dict(state_dict=weights(1.0)), path), refs=('main',))
    put(folder, MAIN, 'sub/net.safetensors', lambda path: save_file(weights(2.0), path))
    put(folder, OLD, 'net.pth', lambda path: torch.save(weights(3.0), path), refs=('v0', 'refs/pr/1'))
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return folder


def put(folder, commit, name, write, refs=()):
    blob, link = folder / 'blobs' / f'{commit}-{name.replace("/", "-")}', folder / 'snapshots' / commit / name
    blob.parent.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    write(blob)
    link.symlink_to(os.path.relpath(blob, link.parent))
    for ref in refs:
        path = folder / 'refs' / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


def weights(value):
    return {'weight': torch.full((2, 2), value), 'bias': torch.full((2,), value)}


@pytest.mark.parametrize(
    'address, value',
    [
        ('hf://owner/repo/net.pth', 1.0),
        ('hf://owner/repo@main/net.pth', 1.0),
        ('hf://owner/repo/sub/net.safetensors', 2.0),
        ('hf://owner/repo@v0/net.pth', 3.0),
        ('hf://owner/repo@refs%2Fpr%2F1/net.pth', 3.0),
        (f'hf://owner/repo@{OLD}/net.pth', 3.0),
    ],
)
def test_every_loader_uses_the_cached_revision(cache, address, value):
    module = nn.Linear(2, 2)
    Pretrained(address, strict=True)(module)
    assert (module.weight == value).all()
    assert (module.bias == value).all()
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        loaded = load(address)
        assert torch.equal(loaded.get('state_dict', loaded)['weight'], module.weight)


def test_a_cached_file_is_read_safely(cache, tmp_path):
    put(cache, MAIN, 'code.pth', lambda path: torch.save(dict(meta=RunsCode(tmp_path / 'ran')), path))
    with pytest.raises(CheckpointError, match=r'code\.pth is refused.*posix\.system'):
        CheckpointLoader.load_checkpoint('hf://owner/repo/code.pth')
    assert not (tmp_path / 'ran').exists()


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize(
    'address', ['hf://owner/repo/other.pth', f'hf://owner/repo@{"c" * 40}/net.pth', 'hf://other/repo/net.pth']
)
def test_a_file_neither_cached_nor_reachable(cache, address):
    with pytest.raises(CheckpointNotFoundError) as error:
        Pretrained(address)(nn.Linear(2, 2))
    message, file = str(error.value), parse_address(address)
    assert message.startswith(f'{address}: HF_HUB_OFFLINE is set')
    assert constants.HF_HUB_CACHE in message
    assert f'hf download {file.repo} {file.path}' in message
    assert f'models--{file.repo.replace("/", "--")}' in message
    assert (f'--revision {"c" * 40}' in message) == (file.revision is not None)


def test_an_incomplete_download_is_not_used(cache):
    torch.save(weights(4.0), cache / 'blobs' / 'half.incomplete')
    with pytest.raises(CheckpointNotFoundError, match='HF_HUB_OFFLINE'):
        download_from_hub('hf://owner/repo/half')


def test_without_the_flag_and_without_a_network(cache, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)

    def unreachable(*_, **__):
        raise errors.LocalEntryNotFoundError('An error happened while trying to locate the file')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', unreachable)
    with pytest.raises(CheckpointNotFoundError, match='the Hub cannot be reached, and the file is not in the cache'):
        download_from_hub('hf://owner/repo/other.pth')


def answer(kind):
    """An error of the Hub's client, created without a response."""
    error = kind.__new__(kind)
    Exception.__init__(error, '404 Client Error.\n\nSomething long')
    return error


@pytest.mark.parametrize(
    'error, kind, message',
    [
        (answer(errors.RepositoryNotFoundError), FileNotFoundError, 'no repository owner/repo, or it is private'),
        (
            answer(errors.GatedRepoError),
            CheckpointError,
            'owner/repo is gated. Ask for access at https://huggingface.co/',
        ),
        (answer(errors.RevisionNotFoundError), FileNotFoundError, 'owner/repo has no branch, tag or commit v9'),
        (answer(errors.EntryNotFoundError), FileNotFoundError, r'owner/repo has no file a/net\.pth at revision v9'),
        (ConnectionResetError('broken pipe'), CheckpointError, 'could not be downloaded .ConnectionResetError: broken'),
        (
            OSError(28, 'No space left on device'),
            CheckpointError,
            'No space left on device.*An incomplete file is never used',
        ),
    ],
)
def test_each_error_of_the_hub_becomes_one_of_ours(monkeypatch, error, kind, message):
    asked = []

    def refuse(repo, path, revision=None):
        asked.append((repo, path, revision))
        raise error

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    with pytest.raises(kind, match=rf'^hf://owner/repo@v9/a/net\.pth.*{message}'):
        CheckpointLoader.load_checkpoint('hf://owner/repo@v9/a/net.pth')
    assert asked == [('owner/repo', 'a/net.pth', 'v9')]


@pytest.mark.parametrize(
    'address',
    [
        'hf://owner',
        'hf://owner/repo',
        'hf://owner/repo/',
        'hf://owner/repo@/net.pth',
        'hf://owner//net.pth',
        'hf://owner/repo/../net.pth',
        'hf://owner/repo//net.pth',
        'hf://datasets/owner/repo/net.pth',
        'hf:///net.pth',
        'hf://owner/repo@v1@v2/net.pth',
    ],
)
def test_malformed_addresses(address):
    with pytest.raises(CheckpointError, match=r'hf://owner/repo@revision/path/in/repo') as error:
        load_checkpoint_file(address)
    assert address in str(error.value)


@pytest.mark.parametrize(
    'address, parts',
    [
        ('hf://a/b/c.pth', ('a/b', None, 'c.pth')),
        ('hf://Changyao/ADDP/addp-vit-base-16.pth', ('Changyao/ADDP', None, 'addp-vit-base-16.pth')),
        ('hf://a-b/c_d.e@refs%2Fpr%2F1/sub/f g.pth', ('a-b/c_d.e', 'refs/pr/1', 'sub/f g.pth')),
    ],
)
def test_the_parts_of_an_address(address, parts):
    assert parse_address(address) == parts


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(CheckpointError, match='pip install huggingface_hub'):
        download_from_hub('hf://owner/repo/net.pth')


@pytest.mark.slow
def test_the_environment_decides(cache):
    code = (
        'import sys\nfrom addp_mm.checkpoints.reading import load_checkpoint_file\n'
        'print(float(load_checkpoint_file(sys.argv[1])["bias"][0]))'
    )
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HUB_CACHE': constants.HF_HUB_CACHE}
    result = subprocess.run(
        [sys.executable, '-c', code, 'hf://owner/repo@v0/net.pth'], env=env, text=True, capture_output=True, check=False
    )
    assert result.stdout.strip() == '3.0', result.stderr
