"""The order of the rooms, as ARCHITECTURE.md draws it: a room imports from the rooms before it only, and no two modules
import each other. Public functions have types.
"""

import ast
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ORDER = ['bootstrap', 'runtime', 'formats', 'graphs', 'symbols', 'optimizers', 'interop', 'train', 'tools']


def modules():
    """Dict from a module's name to its path."""
    found = {}
    for room in ORDER:
        for folder, _, names in os.walk(os.path.join(ROOT, room)):
            for name in names:
                if name.endswith('.py'):
                    path = os.path.join(folder, name)
                    module = os.path.relpath(path, ROOT)[:-3].replace(os.sep, '.')
                    found[module[: -len('.__init__')] if module.endswith('.__init__') else module] = path
    return found


def imports(module, path, known):
    """The modules of this project that ``module`` imports anywhere in its text, functions included."""
    with open(path, encoding='utf-8') as source:
        tree = ast.parse(source.read())
    package = module if path.endswith('__init__.py') else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')
            base = '.'.join(parts[: len(parts) - node.level + 1]) if node.level else ''
            origin = '.'.join(part for part in (base, node.module) if part)
            submodules = [f'{origin}.{name.name}' for name in node.names if f'{origin}.{name.name}' in known]
            yield from submodules
            if origin in known and len(submodules) < len(node.names):
                yield origin


@pytest.fixture(scope='module')
def graph():
    known = modules()
    return {module: sorted(set(imports(module, path, known)) - {module}) for module, path in known.items()}


def test_tests_do_not_import_tests():
    """What test modules share is in ``tests/helpers``; code in strings, which tests run in processes, counts too."""
    found = []
    for folder, _, names in os.walk(os.path.join(ROOT, 'tests')):
        for name in (name for name in names if name.endswith('.py')):
            with open(os.path.join(folder, name), encoding='utf-8') as source:
                found += [(name, line.strip()) for line in source if re.match(r'\s*(from|import) test_', line)]
    assert found == []


def test_arrows_run_one_way(graph):
    rank = {room: position for position, room in enumerate(ORDER)}
    upward = [
        f'{module} imports {other}'
        for module, others in graph.items()
        for other in others
        if rank[other.split('.')[0]] > rank[module.split('.')[0]]
    ]
    assert upward == []


def test_no_circle(graph):
    done, path = set(), []

    def visit(module):
        assert module not in path, ' -> '.join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in graph[module]:
                visit(other)
            done.add(path.pop())

    for module in graph:
        visit(module)


def test_every_room_is_known():
    packages = {name for name in os.listdir(ROOT) if os.path.exists(os.path.join(ROOT, name, '__init__.py'))}
    assert packages == set(ORDER)


def public_functions(body, of=''):
    """(name, function) of each public function and method; ``__init__`` and its like count as public."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body, f'{of}{node.name}.')
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith('_') or node.name.endswith('__'):
                yield f'{of}{node.name}', node
        elif isinstance(node, (ast.If, ast.Try)):
            yield from public_functions([*node.body, *node.orelse], of)


def lacks_types(name, function):
    """Whether an argument or the result has no type; ``self``, ``cls`` and the result of ``__init__`` need none."""
    arguments = [one for one in ast.iter_child_nodes(function.args) if isinstance(one, ast.arg)]
    untyped = {one.arg for one in arguments if one.annotation is None} - {'self', 'cls'}
    return bool(untyped) or function.returns is None and not name.endswith('.__init__')


@pytest.mark.parametrize('room', ORDER)
def test_public_functions_have_types(room):
    """mypy then checks their bodies too."""
    found = []
    for module, path in modules().items():
        if module.split('.')[0] == room:
            with open(path, encoding='utf-8') as source:
                tree = ast.parse(source.read())
            found += [f'{module}.{name}' for name, node in public_functions(tree.body) if lacks_types(name, node)]
    assert found == []
