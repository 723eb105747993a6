"""The one way to open a file: what is no regular file, too large, no text or no JSON is one error that names it."""

import json
import os
import time

import pytest

from runtime.errors import CheckpointError, DataError
from runtime.files import sha256
from runtime.reading import MAX_DEPTH, MB, open_regular, read_bytes, read_json, read_json_lines, read_text, size_of

READERS = {
    'bytes': lambda path: read_bytes(path, MB),
    'text': lambda path: read_text(path, MB),
    'json': lambda path: read_json(path, MB),
    'lines': lambda path: read_json_lines(path, MB),
    'sum': sha256,
}


def refused(read, path, reason):
    start = time.process_time()
    with pytest.raises(DataError, match=reason) as caught:
        read(str(path))
    assert str(path) in str(caught.value)
    assert time.process_time() - start < 1


@pytest.mark.parametrize('read', READERS.values(), ids=READERS)
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(str(tmp_path / 'pipe'))
    os.symlink('/dev/zero', str(tmp_path / 'zeros'))
    (tmp_path / 'file').write_text('{}')
    refused(read, tmp_path / 'pipe', 'not a regular file')
    refused(read, tmp_path / 'zeros', 'not a regular file')
    refused(read, tmp_path, 'a folder, not a regular file')
    refused(read, tmp_path / 'nowhere', 'no such file')
    refused(read, tmp_path / 'file' / 'below', 'no such file')


def test_a_pipe_that_takes_the_place_of_the_file_does_not_hang(tmp_path, monkeypatch):
    os.mkfifo(str(tmp_path / 'pipe'))
    (tmp_path / 'file').write_text('{}')
    regular = os.stat(str(tmp_path / 'file'))
    monkeypatch.setattr('runtime.reading.os.stat', lambda path: regular)
    refused(READERS['bytes'], tmp_path / 'pipe', 'not a regular file')


def test_the_error_is_the_readers_own_and_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match='nowhere: no such file; train first'):
        open_regular(str(tmp_path / 'nowhere'), error=CheckpointError, missing='train first')


def test_files_that_are_too_large_are_not_read(tmp_path):
    with open(str(tmp_path / 'huge'), 'wb') as huge:
        huge.truncate(1 << 40)
    for name in ('bytes', 'text', 'json', 'lines'):
        refused(READERS[name], tmp_path / 'huge', 'no file of its kind has more than 1,048,576')
    with open_regular(str(tmp_path / 'huge')) as source:
        assert size_of(source) == 1 << 40


def test_text_is_strict(tmp_path):
    path = tmp_path / 'text'
    path.write_bytes('\ufeffone\r\nλ\rthree'.encode())
    assert read_text(str(path), MB) == 'one\nλ\nthree'
    path.write_bytes(b'one\xff')
    refused(READERS['text'], path, r'not a text file \(byte 3 is not UTF-8\)')
    path.write_bytes(b'one\0two')
    refused(READERS['text'], path, r'not a text file \(byte 3 is zero\)')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'not JSON'),
        ('{"a": 1', 'not JSON'),
        ('[' * 100_000, 'nested too deeply'),
        ('{"a":' * 100_000, 'nested too deeply'),
        ('[' * (MAX_DEPTH + 1) + ']' * (MAX_DEPTH + 1), 'nested too deeply'),
        ('9' * 1_000_000, 'not JSON'),
        ('["\\ud800"]', 'not JSON'),
        ('[1]\n[2]', 'not JSON'),
    ],
    ids=range(8),
)
def test_json_is_strict(tmp_path, text, reason):
    path = tmp_path / 'x.json'
    path.write_text(text)
    refused(READERS['json'], path, reason)


def test_json_that_is_sound(tmp_path):
    value = {
        'a': [1, -2.5, None, True, 'λ\U0001f600'],
        'deep': json.loads('[' * (MAX_DEPTH - 1) + ']' * (MAX_DEPTH - 1)),
    }
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(value))
    assert read_json(str(path), MB) == value
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n')
    assert read_json_lines(str(path), MB) == [{'epoch': 0}, {'epoch': 1}]
    path.write_text('{"epoch": 0}\n{"epoch"\n')
    refused(READERS['lines'], path, 'line 2: not JSON')
