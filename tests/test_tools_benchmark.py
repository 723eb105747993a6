"""The benchmarks run, on networks of toy size, and say what they measured. How fast anything is, is not asked here."""

import json
import subprocess

import cv2
import numpy as np
import pytest

from formats.checkpoint_files import save_model
from formats.record_file import RecordFile
from graphs.strip import strip
from runtime import mx
from runtime.errors import UserError
from symbols import resnet
from tools import benchmark, convert
from tools.benchmarks import scaling
from tools.benchmarks.synthetic_jpegs import write_records

TURNS = ['--rounds', '2', '--steps', '1']
COMMON = {'ms', 'peak MiB', 'all ms'}
SMALL = ['--network', 'resnet', '--num-layers', 20, '--num-classes', 10, '--batch-size', 2, '--image-shape']


def measured(*argv, path):
    assert benchmark.main([*map(str, argv), '--json', str(path)]) == 0
    found = json.loads(path.read_text())
    assert found['command'].startswith(f'python tools/benchmark.py {argv[0]}')
    assert {'cpu', 'cores', 'omp_num_threads', 'load', 'versions'} <= set(found['environment'])
    assert found['environment']['versions']['mxnet'] == mx.__version__
    return found['rows']


def test_train(tmp_path, capsys):
    rows = measured('train', *SMALL, '3,8,8', '--lambdas', 'off,weight', *TURNS, path=tmp_path / 'train.json')
    assert [row['engine, λ'] for row in rows] == ['mxnet off', 'mxnet weight']
    assert rows[0]['speed over the first'] == 1
    for row in rows:
        assert set(row) == COMMON | {'engine, λ', 'images/s', 'speed over the first'}
        assert len(row['all ms']) == 2
        assert 20 < row['peak MiB'] < 2000
    assert '| mxnet weight |' in capsys.readouterr().out


def test_train_in_half_and_in_less_memory(tmp_path):
    flags = ['--lambdas', 'weight', '--dtypes', 'float16', '--memonger', '0,1', *TURNS]
    rows = measured('train', *SMALL, '3,8,8', *flags, path=tmp_path / 'train.json')
    assert [row['engine, λ'] for row in rows] == ['mxnet weight float16', 'mxnet weight float16 memonger']
    with pytest.raises(UserError, match='bfloat16 is of torch'):
        benchmark.main(['train', '--engines', 'mxnet', '--dtypes', 'bfloat16'])


def test_train_without_some_blocks(tmp_path):
    """Blocks cost what strip counts: 46.4 % of the MACs of ResNet-20 are left with the two of the last stage."""
    flags = ['--lambdas', 'off,weight', '--blocks', '000011', *TURNS]
    rows = measured('train', *SMALL, '3,32,32', *flags, path=tmp_path / 'train.json')
    assert [row['engine, λ'] for row in rows] == ['mxnet off', 'mxnet weight', 'mxnet weight blocks 000011']
    assert [row['MACs kept (%)'] for row in rows] == [100, 100, pytest.approx(46.4, abs=0.05)]
    with pytest.raises(UserError, match='--blocks 0011: give a digit for each of the 6 blocks of the network'):
        benchmark.main(list(map(str, ['train', *SMALL, '3,32,32', '--blocks', '0011', *TURNS])))


def test_train_on_both_engines(tmp_path):
    pytest.importorskip('torch')
    flags = ['--engines', 'mxnet,torch', '--dtypes', 'float32,bfloat16', '--lambdas', 'weight', *TURNS]
    rows = measured('train', *SMALL, '3,8,8', *flags, path=tmp_path / 'train.json')
    assert [row['engine, λ'] for row in rows] == ['mxnet weight', 'torch weight', 'torch weight bfloat16']
    assert rows[1]['images/s'] > 0


def test_optimizer(tmp_path):
    rows = measured(
        'optimizer',
        '--num-layers',
        20,
        '--image-shape',
        '3,32,32',
        '--optimizers',
        'apg',
        *TURNS,
        path=tmp_path / 'optimizer.json',
    )
    assert [row['optimizer'] for row in rows] == ['nag', 'apg']
    assert all(set(row) == COMMON | {'optimizer', 'time over nag'} for row in rows)


def test_io(tmp_path):
    rows = measured('io', '--dataset', 'synthetic', '--batch-size', 4, '--batches', 2, path=tmp_path / 'io.json')
    assert [row['augmentation'] for row in rows] == ['none', "the paper's"]
    assert all(row['images/s/core'] > 0 for row in rows)


def test_io_of_jpegs(tmp_path):
    """The pipelines have turns of the same images, which are made once and found again."""
    flags = [
        '--synthetic',
        8,
        '--scratch',
        tmp_path,
        '--batch-size',
        4,
        '--clock',
        'family',
        '--rounds',
        1,
        '--steps',
        1,
        '--network',
        'resnet',
        '--num-layers',
        18,
    ]
    rows = measured('io', *flags, path=tmp_path / 'io.json')
    assert [row['pipeline'] for row in rows] == [
        'cv2.imdecode alone',
        'ours',
        'ImageRecordIter',
        'a training step of resnet-18',
    ]
    assert set(rows[0]) >= COMMON  # the columns of 'train'
    assert rows[0]['of the limit'] == 1
    for row in rows:
        assert row['images/s'] > 0
        assert 20 < row['MiB at first'] < 2000
    made = (tmp_path / 'synthetic-8.rec').stat().st_mtime_ns
    assert write_records(str(tmp_path), 8) == f'{tmp_path}/synthetic-8.rec'
    assert (tmp_path / 'synthetic-8.rec').stat().st_mtime_ns == made


def test_synthetic_records_repeat_and_weigh_what_photographs_do(tmp_path):
    one, other = (write_records(str(tmp_path / name), 5) for name in ('a', 'b'))
    with open(one, 'rb') as first, open(other, 'rb') as second:
        assert first.read() == second.read()
    records = RecordFile(one)
    images = [records.read(position).image for position in range(5)]
    assert len(records) == len(set(images)) == 5
    for data in images:
        assert 50_000 < len(data) < 200_000
        height, width, _ = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
        assert 300 <= min(height, width) <= max(height, width) <= 500


def test_records(tmp_path):
    folder = tmp_path / 'jpegs'
    rows = measured('records', '--images', 6, '--jobs', 1, '--folder', folder, path=tmp_path / 'records.json')
    assert [row['step'] for row in rows][:2] == ['make, original bytes', 'make, --resize 256']
    assert all(row['images'] == 6 and row['images/s'] > 0 and row['images/s/core'] > 0 for row in rows)
    assert len(list(folder.glob('*/*.JPEG'))) == 6  # kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ['jpegs', 'records.json']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """PREFIX:EPOCH of a toy network with one dead unit in each stage but the first, and of the same stripped."""
    folder = tmp_path_factory.mktemp('models')
    symbol = resnet.network((1, 2), (8, 16), resnet.bottleneck_unit, True, 4, (3, 8, 8), ('block',), 'weight')
    module = mx.mod.Module(symbol)
    module.bind([('data', (1, 3, 8, 8))], [('softmax_label', (1,))])
    module.init_params(mx.init.Xavier())
    arg_params, aux_params = module.get_params()
    arg_params['lambda_block'][1] = 0
    save_model(str(folder / 'full'), 3, symbol, arg_params, aux_params)
    save_model(str(folder / 'small'), 0, *strip(symbol, arg_params, aux_params, {'data': (1, 3, 8, 8)})[:3])
    return f'{folder}/full:3', f'{folder}/small:0'


@pytest.mark.parametrize('runtime', ['mxnet', 'onnxruntime', 'torch'])
def test_inference(checkpoints, tmp_path, runtime):
    if runtime != 'mxnet':
        pytest.importorskip(runtime)
    plot = tmp_path / 'speed.png'
    rows = measured(
        'inference',
        *checkpoints,
        '--runtimes',
        runtime,
        '--batch-sizes',
        2,
        '--plot',
        plot,
        *TURNS,
        path=tmp_path / 'inference.json',
    )
    full, small = (row for row in rows if row['runtime'] == f'{runtime} cpu')
    assert (full['network'], small['network']) == checkpoints
    assert full['MACs ratio'] == full['speed-up'] == 1
    assert small['MACs ratio'] == pytest.approx(full['GMACs'] / small['GMACs'])
    assert small['MACs ratio'] > 1.1  # the full network was not stripped for the comparison, though it could have been
    assert small['of it'] == pytest.approx(small['speed-up'] / small['MACs ratio'])
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_inference_of_an_onnx_file_beside_the_checkpoint_that_it_was_made_of(checkpoints, tmp_path):
    pytest.importorskip('onnxruntime')
    small = checkpoints[1]
    assert convert.main([small, '--to', 'onnx', '--out', str(tmp_path / 'small.onnx')]) == 0
    sources = [small, str(tmp_path / 'small.onnx')]
    flags = ['--runtimes', 'mxnet,onnxruntime', '--batch-sizes', 2, *TURNS]
    rows = measured('inference', *sources, *flags, path=tmp_path / 'inference.json')
    assert [(row['runtime'], row['network']) for row in rows] == [
        ('mxnet cpu', small),
        ('onnxruntime cpu', small),
        ('onnxruntime cpu', sources[1]),
    ]
    assert rows[2]['GMACs'] == rows[1]['GMACs']


@pytest.mark.parametrize(
    ('argv', 'said'),
    [(['train', '--lambdas', 'off,sideways'], 'sideways'), (['train', '--rounds', '0'], 'above 0'), ([], 'required')],
)
def test_wrong_options_are_refused(argv, said):
    with pytest.raises(UserError, match=said):
        benchmark.main(argv)


def test_a_source_that_is_no_checkpoint_is_refused():
    with pytest.raises(UserError, match='give a checkpoint'):
        benchmark.main(['inference', 'nothing'])


def test_inference_of_a_published_structure(tmp_path):
    """The rows of the published tables can be measured without a checkpoint, where their structure is known."""
    path = tmp_path / 'found.json'
    names = ['cifar100/resnet-20', 'cifar10/resnet-20']
    assert (
        benchmark.main(
            [
                'inference',
                *names,
                '--runtimes',
                'mxnet',
                '--batch-sizes',
                '1',
                '--rounds',
                '1',
                '--steps',
                '1',
                '--json',
                str(path),
            ]
        )
        == 0
    )
    assert [row['network'] for row in json.loads(path.read_text())['rows']] == names
    with pytest.raises(UserError, match='not published'):
        benchmark.main(['inference', 'cifar10/sss-resnet-20'])


def test_scaling_sums_the_median_speeds_of_all_workers(monkeypatch, capsys):
    """Lines of three rounds of two workers, who are slow at first."""
    asked = []

    def run(command, **_):
        asked.append(command)
        ranks = range(2 if '-n' in command else 1)
        lines = [
            f'[worker {rank}] 2026-01-01 Node[{rank}] Epoch[0] Batch [{first}-{first + 3}]\tSpeed: {speed} '
            'samples/sec\taccuracy=0.1'
            for rank in ranks
            for first, speed in ((0, 1.0), (3, 90.0 + 10 * rank), (6, 95.0), (9, 100.0))
        ]
        return subprocess.CompletedProcess(command, 0, stderr='\n'.join(lines))

    monkeypatch.setattr(subprocess, 'run', run)
    monkeypatch.setattr(scaling, 'usable_cores', lambda: 2)
    assert benchmark.main(['scaling', '--workers', '2,4']) == 0
    assert [command.count('-n') for command in asked] == [0, 1, 1]
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('|')
    ]
    assert rows[2:] == [
        ['one process, no server', '95.0', '95.0', '1.000'],
        ['2', '195.0', '190.0', '1.026'],
        ['4', '195.0', '190.0', '1.026'],
    ]
