# Copyright (c) addp_mm contributors. Apache-2.0.
"""Servers that redirect elsewhere, send without end, or name files outside of the folder."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from addp_mm.checkpoints import download as downloads
from addp_mm.checkpoints.download import download
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.hub import parse_address
from addp_mm.checkpoints.loaders import load_url

TARGETS = ('file:///etc/passwd', 'ftp://127.0.0.1/x', 'data:text/plain,x', 'FILE:///etc/passwd', 'gopher://x/')


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.lstrip('/')
        if path.isdigit():
            self.send_response(302)
            self.send_header('Location', TARGETS[int(path)])
            self.end_headers()
        elif path == 'around':
            self.send_response(302)
            self.send_header('Location', '/around')
            self.end_headers()
        elif path == 'announced':
            self.send_response(200)
            self.send_header('Content-Length', str(2**60))
            self.end_headers()
        else:  # without an announced length
            self.send_response(200)
            self.end_headers()
            for _ in range(64):
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize('number', range(len(TARGETS)))
def test_redirects_to_other_schemes_are_refused(url, tmp_path, number):
    with pytest.raises(
        CheckpointError, match='Redirection to url .* is not allowed|redirects to .*, which is not https or http'
    ):
        download(f'{url}/{number}', tmp_path / 'x.pth', progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('address', ['file:///etc/passwd', 'ftp://127.0.0.1/x', 'data:,x'])
def test_only_http_is_opened(tmp_path, address):
    with pytest.raises(CheckpointError, match='could not be downloaded'):
        download(address, tmp_path / 'x.pth', progress=False)
    assert list(tmp_path.iterdir()) == []


def test_https_is_not_left():
    (redirects,) = [one for one in downloads._opener().handlers if type(one).__name__ == 'SameOrSafer']
    from urllib.request import Request

    with pytest.raises(ConnectionError, match='is not https'):
        redirects.redirect_request(Request('https://a.org/x'), None, 302, '', {}, 'http://a.org/x')
    assert redirects.redirect_request(Request('http://a.org/x'), None, 302, '', {}, 'https://a.org/x').type == 'https'


def test_redirects_in_a_circle_end(url, tmp_path):
    with pytest.raises(CheckpointError, match='around'):
        download(f'{url}/around', tmp_path / 'x.pth', progress=False)


@pytest.mark.parametrize('name, words', [('announced', 'more than 100 GiB'), ('endless', 'more than 0 GiB')])
def test_files_have_a_largest_size(url, tmp_path, monkeypatch, name, words):
    if name == 'endless':
        monkeypatch.setattr(downloads, 'MOST_BYTES', 1 << 20)
    with pytest.raises(CheckpointError, match=words):
        download(f'{url}/{name}', tmp_path / 'x.pth', progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['', '..', '.', 'a/..'])
def test_names_of_files_stay_in_the_folder(url, tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    with pytest.raises(CheckpointError, match='is not the address of a file'):
        load_url(f'{url}/{name}')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('revision', ['..', '..%2F..%2Fx', 'a%2F..%2Fb'])
def test_revisions_of_the_hub_stay_in_the_cache(revision):
    with pytest.raises(CheckpointError, match='a revision cannot have'):
        parse_address(f'hf://owner/name@{revision}/x.pth')
