# Copyright (c) addp_mm contributors. Apache-2.0.
"""http addresses, read from a server in this process. Only complete files are kept."""

import io
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save
from torch import nn

import addp_mm  # noqa: F401
from addp_mm.checkpoints.download import download
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.pretrained import Pretrained

WEIGHTS = {'weight': torch.full((64, 64), 2.0), 'bias': torch.full((64,), 3.0)}


def pth() -> bytes:
    file = io.BytesIO()
    torch.save(dict(model=WEIGHTS), file)
    return file.getvalue()


FILES = {'/net.pth': pth(), '/net.safetensors': save(WEIGHTS), '/page.pth': b'<html>not found</html>'}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = FILES.get(self.path.split('?')[0])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        if 'unannounced' not in self.path:
            self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.breaks else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.asked, server.breaks = [], False
        server.url = f'http://127.0.0.1:{server.server_port}'
        server.kept = tmp_path / 'hub' / 'checkpoints'
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize('name', ['net.pth', 'net.safetensors', 'net.pth?download=true', 'net.pth?unannounced'])
def test_a_file_is_downloaded_once(server, name):
    module = nn.Linear(64, 64)
    for _ in range(2):
        Pretrained(f'{server.url}/{name}', strict=True)(module)
    assert (module.weight == 2).all()
    assert (module.bias == 3).all()
    assert server.asked == [f'/{name}']
    assert [path.name for path in server.kept.iterdir()] == [name.split('?')[0]]


@pytest.mark.parametrize('name', ['net.pth', 'net.safetensors'])
def test_an_incomplete_file_is_never_used(server, name):
    server.breaks = True
    for _ in range(2):
        with pytest.raises(CheckpointError, match=rf'{name} could not be downloaded .*broke after \d+ of \d+ bytes'):
            CheckpointLoader.load_checkpoint(f'{server.url}/{name}')
        assert list(server.kept.iterdir()) == []
    server.breaks = False
    loaded = CheckpointLoader.load_checkpoint(f'{server.url}/{name}')
    assert torch.equal(loaded.get('model', loaded.get('state_dict'))['bias'], WEIGHTS['bias'])


def test_an_older_file_stays_while_a_newer_one_breaks(server, tmp_path):
    (tmp_path / 'net.pth').write_bytes(b'whole')
    server.breaks = True
    with pytest.raises(CheckpointError, match='No part of the file was kept'):
        download(f'{server.url}/net.pth', str(tmp_path / 'net.pth'), progress=False)
    assert (tmp_path / 'net.pth').read_bytes() == b'whole'
    assert [path.name for path in tmp_path.iterdir()] == ['net.pth']


def test_a_file_that_the_server_does_not_have(server):
    with pytest.raises(FileNotFoundError, match=r'other\.pth: the server answers 404'):
        CheckpointLoader.load_checkpoint(f'{server.url}/other.pth')
    with pytest.raises(CheckpointError, match='is not the address of a file'):
        CheckpointLoader.load_checkpoint(f'{server.url}/')


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with pytest.raises(CheckpointError, match=r'could not be downloaded .*refused'):
        CheckpointLoader.load_checkpoint('http://127.0.0.1:9/net.pth')


def test_a_page_instead_of_a_file_is_not_kept(server):
    with pytest.raises(CheckpointError, match=r'is a web page.*page\.pth and was not kept'):
        CheckpointLoader.load_checkpoint(f'{server.url}/page.pth')
    assert list(server.kept.iterdir()) == []


def test_an_incomplete_file_of_unknown_length_is_not_kept(server):
    server.breaks = True
    with pytest.raises(CheckpointError, match='is truncated.*was not kept'):
        CheckpointLoader.load_checkpoint(f'{server.url}/net.pth?unannounced')
    assert list(server.kept.iterdir()) == []


def test_a_bad_file_of_an_earlier_download_is_named(server):
    server.kept.mkdir(parents=True)
    (server.kept / 'net.pth').write_bytes(FILES['/net.pth'][:5000])
    with pytest.raises(CheckpointError, match=rf'{server.kept}/net\.pth is truncated.*delete it to load {server.url}'):
        CheckpointLoader.load_checkpoint(f'{server.url}/net.pth')
    assert (server.kept / 'net.pth').exists()
    assert server.asked == []


RANK = """
import sys
import torch
torch.distributed.init_process_group('gloo')
import addp_mm
from mmengine.runner.checkpoint import CheckpointLoader
try:
    loaded = CheckpointLoader.load_checkpoint(sys.argv[1])
    line = f"bias {loaded['model']['bias'].sum().item()}"
except FileNotFoundError:
    line = 'not found'
sys.stdout.write(f'{line}\\n')  # one write, so that the lines of two processes cannot mingle
sys.stdout.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize('name, printed, asked', [('net.pth', 'bias 192.0', 1), ('other.pth', 'not found', 2)])
def test_of_two_processes_the_first_downloads(server, tmp_path, monkeypatch, name, printed, asked):
    (tmp_path / 'rank.py').write_text(RANK)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        '2',
        str(tmp_path / 'rank.py'),
        f'{server.url}/{name}',
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(printed) == 2
    assert server.asked == [f'/{name}'] * asked
