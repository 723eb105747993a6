"""A few hundred damaged files in every `make test`, and proof that the fuzzer sees what it looks for. `make fuzz` tries
100,000.
"""

import fuzz_files
import pytest
from helpers import fuzz_worker

from runtime.errors import CheckpointError

SUICIDAL = """
import os, struct, sys
folder, _, first, step, count, _ = sys.argv[1], *map(int, sys.argv[2:])
for index in range(first, count, step):
    with open(os.path.join(folder, 'place'), 'wb') as place:
        place.write(struct.pack('<q', index))
    if index in (3, 8):
        os.abort()
    if index == 5:
        with open(os.path.join(folder, 'findings.jsonl'), 'a') as findings:
            print('{"index": 5, "kind": "params", "reason": "as told"}', file=findings)
"""


def test_a_few_hundred_damaged_files(tmp_path):
    assert fuzz_files.fuzz(count=400, seed=1000, workers=1, run_share=25, folder=str(tmp_path)) == ([], 400)


def test_cases_can_be_made_again(tmp_path):
    """In another process too, except that PyTorch writes addresses into its older files."""
    one, two = (fuzz_worker.Corpus(tmp_path / name) for name in ('one', 'two'))
    cases = [one.case(0, index) for index in range(100)]
    assert len({kind for kind, _ in cases}) >= 3
    assert all(cases[index] == one.case(0, index) for index in range(100))
    assert all(cases[index] == two.case(0, index) for index in range(100) if cases[index][0] != 'torch')


@pytest.mark.parametrize(
    ('error', 'finding'),
    [
        (KeyError('w'), 'KeyError'),
        (MemoryError(), 'MemoryError'),
        (RecursionError(), 'RecursionError'),
        (CheckpointError('it is damaged'), 'does not name the file'),
        (CheckpointError('here.params: it is damaged'), None),
    ],
)
def test_what_counts_as_a_finding(monkeypatch, error, finding):
    def load(path):
        raise error

    monkeypatch.setitem(fuzz_worker.LOADERS, 'params', load)
    found = fuzz_worker.judge('params', 'here.params', run=True)
    assert found is None if finding is None else finding in found


def test_slow_readers_are_findings(monkeypatch):
    monkeypatch.setitem(fuzz_worker.LOADERS, 'params', lambda path: sum(range(10**6)))
    monkeypatch.setattr(fuzz_worker, 'TIME_TO_READ', 1e-3)
    assert fuzz_worker.judge('params', 'here.params', run=True).startswith('took')


def test_deaths_are_findings_and_the_rest_is_still_tried(tmp_path, monkeypatch):
    script = tmp_path / 'suicidal.py'
    script.write_text(SUICIDAL)
    monkeypatch.setattr(fuzz_files, 'WORKER', str(script))
    findings, end = fuzz_files.fuzz(count=10, seed=0, workers=2, run_share=100, folder=str(tmp_path))
    assert [(finding['index'], finding['kind']) for finding in findings] == [(3, 'death'), (5, 'params'), (8, 'death')]
    assert end == 10


ENDLESS = """
import os, struct, sys, time
with open(os.path.join(sys.argv[1], 'place'), 'wb') as place:
    place.write(struct.pack('<q', 40 + int(sys.argv[3])))
time.sleep(60)
"""


def test_it_stops_in_time_and_says_where(tmp_path, monkeypatch):
    script = tmp_path / 'endless.py'
    script.write_text(ENDLESS)
    monkeypatch.setattr(fuzz_files, 'WORKER', str(script))
    found = fuzz_files.fuzz(count=99, seed=0, workers=2, run_share=1, folder=str(tmp_path), begin=4, seconds=1)
    assert found in (([], 44), ([], 4))  # 4: a busy machine has not started a worker yet
