# Copyright (c) addp_mm contributors. Apache-2.0.
"""Raw requests to a running page: files, malformed bodies, other web pages."""

import http.client
import json
import socket
from pathlib import Path

import pytest
from helpers.tiny_addp import build_model

import addp_mm

pytest.importorskip('gradio', reason='the extra app is not installed')
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ASSETS = Path(addp_mm.__file__).parent / 'assets'
JOIN = '/gradio_api/queue/join'
JSON = {'Content-Type': 'application/json'}
PARTS = {'Content-Type': 'multipart/form-data; boundary=x'}


@pytest.fixture(scope='module')
def request_to_page():
    """Send a request to a page with a tiny model; returns the status and the content."""
    from addp_mm.app.image_generator import ImageGenerator
    from addp_mm.app.page import PageModels, served

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    def send(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        headers = {'Host': f'127.0.0.1:{port}', **(headers or {})}
        headers = {name: value.replace('PORT', str(port)) for name, value in headers.items()}
        try:
            connection.putrequest(method, path, skip_host=True)
            if body is not None and not {'Content-Length', 'Transfer-Encoding'} & headers.keys():
                headers['Content-Length'] = str(len(body))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    send.port = port
    model = build_model().eval().requires_grad_(False)
    with served(PageModels(ImageGenerator(model)), '127.0.0.1', port, max_upload_mb=1, max_queue=64):
        yield send


def still_answers(request_to_page):
    return request_to_page('GET', '/config')[0] == 200


def test_no_file_of_the_computer_is_served(request_to_page, tmp_path):
    secret = tmp_path / 'secret.txt'
    secret.write_text('TOP SECRET')
    link = tmp_path / 'link.txt'
    link.symlink_to(secret)
    files = [
        '/etc/passwd', '//etc/passwd', '../../../../../etc/passwd', '%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd',
        '..%2f..%2f..%2fetc%2fpasswd', '%252e%252e/etc/passwd', '/proc/self/environ', '/dev/zero', '~/.bashrc',
        'file:///etc/passwd', 'http://127.0.0.1:1/x', secret, link, tmp_path, ASSETS / 'addp_nano-p8.safetensors',
        ROOT / 'setup.cfg', 'setup.cfg', 'README.md', 'work_dirs', '.git/config', '', '%00', 'a' * 5000,
    ]  # fmt: skip
    paths = [f'{start}{file}' for start in ('/gradio_api/file=', '/file=', '/gradio_api/file/') for file in files]
    inside = ('../../../../../etc/passwd', '%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd', '..%2f..%2fetc%2fpasswd')
    paths += [f'/{folder}/{file}' for folder in ('static', 'assets', 'svelte', 'gradio_api/stream') for file in inside]
    paths += ['/gradio_api/proxy=http://127.0.0.1:1/x', '/gradio_api/proxy=file:///etc/passwd', '/monitoring']
    answers = {path: request_to_page('GET', path) for path in paths}
    assert {path: answer for path, answer in answers.items() if answer[0] not in (400, 403, 404, 405, 422)} == {}
    content = b''.join(answer[1] for answer in answers.values())
    assert b'SECRET' not in content
    assert b'root:' not in content
    assert still_answers(request_to_page)


def file_of(path):
    return dict(path=str(path), meta=dict(_type='gradio.FileData'))


@pytest.mark.parametrize(
    'body',
    [
        b'{bad json', b'', b'[]', b'{}', b'null', b'"x"', b'\xff\xfe', b'[' * 100_000, b'{"data":' * 10_000,
        json.dumps(dict(data=[], fn_index=99999, session_hash='x')).encode(),
        json.dumps(dict(data=[], fn_index=-1, session_hash='x')).encode(),
        json.dumps(dict(data='x', fn_index='y', session_hash=[1])).encode(),
        json.dumps(dict(data=[], fn_index=0, session_hash='x')).encode(),
        json.dumps(dict(data=[1e308] * 10_000, fn_index=0, session_hash='x')).encode(),
        json.dumps(dict(data=[None] * 12, fn_index=0, session_hash='x')).encode(),
        json.dumps(dict(data=[{}] * 12, fn_index=0, session_hash='x')).encode(),
        json.dumps(dict(data=['x' * 10_000] * 12, fn_index=0, session_hash='x')).encode(),
        json.dumps(dict(data=[file_of('/etc/passwd')], fn_index=3, session_hash='x')).encode(),
        json.dumps(dict(data=[file_of('x') | dict(url='http://127.0.0.1:1/')], fn_index=3, session_hash='x')).encode(),
    ],
)  # fmt: skip
def test_malformed_bodies_do_not_stop_the_page(request_to_page, body):
    for path in (JOIN, '/gradio_api/run/predict', '/gradio_api/call/handle', '/gradio_api/cancel', '/gradio_api/reset'):
        status, content = request_to_page('POST', path, body, JSON)
        assert 200 <= status < 600
        assert b'root:' not in content
    assert still_answers(request_to_page)


def upload(name, content=b'x'):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode('latin1')
    return head + content + b'\r\n--x--\r\n'


def test_uploads_stay_in_their_folder(request_to_page, tmp_path):
    for name in (
        '../../../../out.png',
        f'{tmp_path}/out.png',
        '..%2fout.png',
        '....//out.png',
        '\\..\\out.png',
        'a.svg',
    ):
        status, content = request_to_page('POST', '/gradio_api/upload', upload(name), PARTS)
        assert status in (200, 400)
        for path in json.loads(content) if status == 200 else ():
            assert Path(path).resolve().is_relative_to(Path(path).parents[1].resolve())
            assert Path(path).parents[1].name == 'gradio'
    assert list(tmp_path.iterdir()) == []
    for body in (b'', b'--x', b'--x\r\nbroken', upload('a.png')[:-8], b'--y\r\n'):
        assert request_to_page('POST', '/gradio_api/upload', body, PARTS)[0] < 600
    assert request_to_page('POST', '/gradio_api/upload', b'x', {'Content-Type': 'multipart/form-data'})[0] < 600
    assert request_to_page('POST', '/gradio_api/upload', upload('a.png', bytes(1_500_000)), PARTS)[0] == 413
    assert still_answers(request_to_page)


def test_large_bodies_are_refused_before_they_are_read(request_to_page):
    for length in (str(10**12), '-1', 'x'):
        try:
            status, _ = request_to_page('POST', JOIN, b'{}', {**JSON, 'Content-Length': length})
        except (http.client.HTTPException, OSError):  # the connection ends without an answer
            continue
        assert status in (400, 413)
    assert request_to_page('POST', JOIN, b'0\r\n\r\n', {**JSON, 'Transfer-Encoding': 'chunked'})[0] == 411
    assert still_answers(request_to_page)


def test_half_open_and_broken_connections_do_not_stop_the_page(request_to_page):
    waiting = []
    for start in (
        b'',
        b'GET / HT',
        b'POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n',
    ):
        for _ in range(20):
            waiting.append(socket.create_connection(('127.0.0.1', request_to_page.port)))
            waiting[-1].sendall(start)
    for junk in (bytes(1000), b'\xff' * 1000, b'GET ' + b'a' * 100_000, b'\x16\x03\x01' + bytes(200)):
        with socket.create_connection(('127.0.0.1', request_to_page.port)) as connection:
            connection.sendall(junk)
    assert still_answers(request_to_page)
    for connection in waiting:
        connection.close()
    assert still_answers(request_to_page)


@pytest.mark.parametrize(
    'headers, status',
    [
        ({'Origin': 'http://evil.org'}, 403),
        ({'Origin': 'null'}, 403),
        ({'Origin': 'http://127.0.0.1:1'}, 403),
        ({'Origin': 'http://127.0.0.1:PORT.evil.org'}, 403),
        ({'Origin': 'http://127.0.0.1:PORT'}, 200),
        ({'Origin': 'http://localhost:PORT', 'Host': 'localhost:PORT'}, 200),
        ({'Host': 'evil.org'}, 403),
        ({'Host': 'evil.org', 'Origin': 'http://evil.org'}, 403),
        ({'Host': '127.0.0.1.evil.org:PORT'}, 403),
        ({'Host': ''}, 403),
        ({'Host': '[::1]:PORT'}, 200),
        ({'Host': '[:PORT'}, 403),
    ],
)
def test_other_web_pages_are_refused(request_to_page, headers, status):
    assert request_to_page('GET', '/config', headers=headers)[0] == status
    body = json.dumps(dict(data=[], fn_index=0, session_hash='x')).encode()
    assert request_to_page('POST', JOIN, body, {**JSON, **headers})[0] == status
