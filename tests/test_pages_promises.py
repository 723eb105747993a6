"""Every test that docs/promises.md names exists."""

import os
import re

from helpers.pages import ROOT, text_of


def test_each_promise_names_tests_that_exist():
    """A cell names its file once; tests behind it without a file are in the last file named."""
    rows = [line for line in text_of(os.path.join('docs', 'promises.md')).splitlines() if '`test_' in line]
    rows = [row for row in rows if row.startswith('| ')]
    assert len(rows) > 20
    for row in rows:
        module = None
        for name in re.findall(r'`(test_\w+(?:\.py)?(?:::test_\w+)?)`', row):
            file, _, test = name.rpartition('::') if '::' in name else (name, '', '')
            if file.endswith('.py'):
                module, file = file, ''
            test = test or file
            with open(os.path.join(ROOT, 'tests', module), encoding='utf-8') as source:
                assert not test or re.search(rf'^def {test}\(', source.read(), re.MULTILINE), f'{module}: {name}'
