"""train_imagenet.py and evaluate.py on record files and folders: resumed to the bit, past damage, and ended by too much
of it.
"""

import argparse
import glob
import json
import os
import re
import signal

import cv2
import numpy as np
import pytest
from helpers.image_fakes import tar_of_tars
from helpers.jpegs import jpeg, offsets, overwrite, save_folders, save_records
from helpers.tiny_runs import LOG_LINE, checkpoint, log_lines, metrics

from formats.checkpoint_files import load_checkpoint, save_model
from graphs.strip import strip
from runtime import mx
from symbols import resnet
from tools import evaluate, make_record
from train import train_imagenet
from train.data.image_augment import CentreView
from train.data.image_sources import ImageReader, RecordSource
from train.data.imagenet import add_imagenet_args, imagenet_from_args
from train.engines.mxnet import MXNetEngine

PHOTOGRAPHS = sorted(glob.glob(os.path.join(os.path.dirname(__file__), '../../shared/data/imagenet-sample/*.JPEG')))
FLAGS = [
    '--image-shape',
    '3,32,32',
    '--num-classes',
    3,
    '--batch-size',
    8,
    '--lr-step-epochs',
    2,
    '--gamma',
    0.1,
    '--data-nthreads',
    1,
    '--disp-batches',
    3,
]
BATCHES = 7


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with train.rec (60 images, 3 classes), val.rec (21), the same in train/ and val/, and a network."""
    folder = tmp_path_factory.mktemp('data')
    for part, numbers in {'train': range(60), 'val': range(60, 81)}.items():
        images = [jpeg(number) for number in numbers]
        save_records(folder / part, images)
        save_folders(folder / part, images)
    with mx.name.NameManager():
        resnet.network((1, 1), (8, 16), resnet.bottleneck_unit, True, 3, (3, 32, 32), ('block',), 'weight').save(
            str(folder / 'net-symbol.json')
        )
    return folder


def train(data, prefix, *flags, rec='train.rec'):
    """Run train_imagenet's main in this process; returns its exit code."""
    files = ['--network', data / 'net-symbol.json', '--data-train', data / rec, '--data-val', data / 'val.rec']
    return train_imagenet.main([*map(str, [*files, '--model-prefix', prefix, *FLAGS, *flags])])


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The prefix of a run of two epochs."""
    prefix = str(tmp_path_factory.mktemp('trained') / 'run')
    assert train(data, prefix, '--num-epochs', 2) == 0
    return prefix


def score(capsys, *flags):
    capsys.readouterr()
    assert evaluate.main([*map(str, flags), '--json']) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_a_run_says(trained):
    lines = log_lines(trained)
    assert all(map(LOG_LINE.match, lines))
    text = '\n'.join(lines)
    assert text.count('Validation on 21 images') == 2
    assert 'Epoch[1] Batch [3-6]\tSpeed:' in text
    assert [line['validation_images'] for line in metrics(trained)] == [21, 21]
    assert set(metrics(trained)[0]['validation']) == {'accuracy', 'top_k_accuracy_5', 'cross-entropy'}


@pytest.mark.parametrize('steps', [BATCHES + 1, BATCHES + 4, 2 * BATCHES - 1])
def test_a_run_interrupted_within_an_epoch_goes_on_to_the_bit(data, trained, tmp_path, monkeypatch, steps):
    """After so many steps comes a SIGTERM; other processes decode the rest, and more of them."""
    done, step = [], MXNetEngine.step

    def counting(self, *args):
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(MXNetEngine, 'step', counting)
    prefix = str(tmp_path / 'run')
    assert train(data, prefix, '--num-epochs', 2) == 128 + signal.SIGTERM
    assert len(done) == steps
    assert train(data, prefix, '--num-epochs', 2, '--resume', '--data-nthreads', 2) == 0
    assert len(done) == 2 * BATCHES
    assert checkpoint(prefix, 2) == checkpoint(trained, 2)
    assert metrics(prefix)[-1]['train'] == metrics(trained)[-1]['train']
    assert metrics(prefix)[-1]['validation'] == metrics(trained)[-1]['validation']


def test_another_augmentation_is_no_continuation(data, trained, refusal):
    files = [
        '--network',
        data / 'net-symbol.json',
        '--data-train',
        data / 'train.rec',
        '--data-val',
        data / 'val.rec',
        '--model-prefix',
        trained,
    ]
    line = refusal(*files, *FLAGS, '--resume', '--pca-noise', 0, script=train_imagenet, is_unchanged=False)
    assert '--pca-noise 0.1 (now 0.0)' in line


@pytest.fixture(scope='module')
def trained_exactly(data, tmp_path_factory):
    """The prefix of a run of one epoch with --exact-pipeline 1."""
    prefix = str(tmp_path_factory.mktemp('exact') / 'run')
    assert train(data, prefix, '--num-epochs', 1, '--exact-pipeline', 1) == 0
    return prefix


def test_a_run_with_the_exact_pipeline_goes_on_only_so(data, trained_exactly, refusal):
    with open(f'{trained_exactly}-0001.json') as file:
        arguments = json.load(file)['arguments']
    assert (arguments['exact_pipeline'], arguments['first_rate_late']) == (1, True)
    files = ['--network', data / 'net-symbol.json', '--data-train', data / 'train.rec', '--data-val', data / 'val.rec']
    flags = [*files, '--model-prefix', trained_exactly, *FLAGS, '--num-epochs', 2, '--resume']
    line = refusal(*flags, script=train_imagenet, is_unchanged=False)
    assert '--exact-pipeline 1 (now 0), --first-rate-late True (now False)' in line
    assert train(data, trained_exactly, '--num-epochs', 2, '--resume', '--exact-pipeline', 1) == 0


def test_evaluation_with_the_exact_pipeline_agrees_with_the_run(data, trained_exactly, capsys):
    found = [
        score(capsys, '--prefix', trained_exactly, '--epoch', 1, '--data-val', data / 'val.rec', *flags)
        for flags in (['--exact-pipeline', 1], [])
    ]
    exact, plain = (scores['cross-entropy'] for scores in found)
    assert exact == pytest.approx(metrics(trained_exactly)[0]['validation']['cross-entropy'], rel=1e-6)
    assert exact != pytest.approx(plain, rel=1e-6)


def test_folders(data, trained, tmp_path):
    prefix = str(tmp_path / 'run')
    files = ['--network', data / 'net-symbol.json', '--data-dir', data, '--model-prefix', prefix]
    assert train_imagenet.main([*map(str, [*files, *FLAGS, '--num-epochs', 1])]) == 0
    assert metrics(prefix)[0]['validation_images'] == 21


def test_io_alone(data, tmp_path, capfd):
    assert train(data, tmp_path / 'run', '--test-io', 1) == 0
    assert re.search(r' [\d.]+ images/s over the epoch\n$', capfd.readouterr().err)
    assert os.listdir(tmp_path) == []


# Damage


def damage(data, folder, count=400):
    """A record file of ``count`` images of which one in a hundred is damaged, each in a way of its own; returns
    {record: what the log must say}.
    """
    images, labels = [jpeg(number % 60) for number in range(count)], [number % 3 for number in range(count)]
    labels[150] = [1.0, 2.0]
    images[250] = images[250][: len(images[250]) // 2]
    path = save_records(folder / 'damaged', images, labels)
    overwrite(path, offsets(path)[50], b'\0\0\0\0')
    os.truncate(path, os.path.getsize(path) - 300)
    return {
        50: 'begins with 00000000 in place of the magic number',
        150: 'its label has 2 numbers, not one',
        250: 'is a JPEG that',
        count - 1: 'which is beyond the end of the file',
    }


def test_damaged_records_are_named_and_left_out(data, tmp_path):
    expected = damage(data, tmp_path)
    prefix = str(tmp_path / 'run')
    # The last image is left out of some epochs, as any may be: 400 images are no whole number of batches of 7.
    assert (
        train(data, prefix, '--num-epochs', 2, '--max-bad', 0.02, '--batch-size', 7, rec=tmp_path / 'damaged.rec') == 0
    )
    lines = [line for line in log_lines(prefix) if 'Damaged' in line]
    for record, reason in expected.items():
        named = [line for line in lines if f'training image {record} left out' in line]
        assert named
        assert all(f'{tmp_path}/damaged.rec: record {record}' in line and reason in line for line in named)
    assert len(lines) == len(set(re.findall(r'Epoch\[\d\] Damaged training image \d+', '\n'.join(lines)))) <= 8


def test_too_many_damaged_records_end_the_run(data, refusal, tmp_path):
    damage(data, tmp_path)
    files = [
        '--network',
        data / 'net-symbol.json',
        '--data-train',
        tmp_path / 'damaged.rec',
        '--data-val',
        data / 'val.rec',
    ]
    line = refusal(*files, *FLAGS, script=train_imagenet)
    assert '1 of 400 training images are damaged, which is more than --max-bad 0.001 allows' in line
    line = refusal(*files, *FLAGS, '--max-bad', 0.005, '--num-epochs', 3, script=train_imagenet)
    assert '3 of 400 training images are damaged' in line


# Scores


def test_evaluation_agrees_with_the_run(data, trained, capsys):
    from_records = score(capsys, f'{trained}:2', '--data-val', data / 'val.rec', '--batch-size', 4)
    from_folders = score(capsys, f'{trained}:2', '--dataset', 'imagenet', '--data-dir', data, '--batch-size', 21)
    of_the_run = metrics(trained)[-1]['validation']
    for found in (from_records, from_folders):
        assert (found.pop('images'), found.pop('dataset')) == (21, 'imagenet')
        assert found.pop('cross-entropy') == pytest.approx(of_the_run['cross-entropy'], rel=1e-5)
        assert found == {name: value for name, value in of_the_run.items() if name != 'cross-entropy'}


def test_a_stripped_network_is_scored_alike(data, trained, tmp_path, capsys):
    symbol, arg_params, aux_params = load_checkpoint(trained, 2)
    arg_params['lambda_block'][0] = 0
    save_model(str(tmp_path / 'full'), 0, symbol, arg_params, aux_params)
    save_model(str(tmp_path / 'small'), 0, *strip(symbol, arg_params, aux_params, {'data': (1, 3, 32, 32)})[:3])
    full, small = (score(capsys, f'{tmp_path / name}:0', '--data-val', data / 'val.rec') for name in ('full', 'small'))
    assert small.pop('cross-entropy') == pytest.approx(full.pop('cross-entropy'), rel=1e-4)
    assert small == full


def test_evaluation_leaves_damaged_images_out(data, trained, tmp_path, capsys):
    images = [jpeg(number) for number in range(60, 81)]
    images[3] = images[3][:400]
    save_records(tmp_path / 'val', images)
    assert score(capsys, f'{trained}:2', '--data-val', tmp_path / 'val.rec', '--max-bad', 0.1)['images'] == 20


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ('--dataset imagenet', 'no images: give --data-val val.rec, or --data-dir with val/ in it'),
        ('--data-val nowhere.rec', 'nowhere.rec: no such file'),
        ('--data-val {data}/val.rec --image-shape 1,32,32', 'does not take images of shape'),
    ],
)
def test_evaluation_refuses(data, trained, refusal, flags, said):
    assert said in refusal(f'{trained}:2', *flags.format(data=data).split(), script=evaluate)


# Real photographs


@pytest.fixture(scope='module')
def photographs():
    """[(bytes of the file, its pixels (3, height, width) RGB by OpenCV)]"""
    if not PHOTOGRAPHS:
        pytest.skip('the photographs are not here')
    found = []
    for path in PHOTOGRAPHS:
        with open(path, 'rb') as file:
            data = file.read()
        found.append(
            (data, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1))
        )
    return found


def centre(pixels, side):
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side]


def test_photographs_go_from_folders_through_a_tar_file_and_records_to_pixels(photographs, tmp_path):
    """Where nothing is resized, they come out pixel for pixel: the shorter side is what it shall be, and normalisation
    changes nothing.
    """
    names = [os.path.basename(path) for path in PHOTOGRAPHS]
    wnids = [name.split('_')[0] for name in names]
    (tmp_path / 'train.tar').write_bytes(
        tar_of_tars({f'{wnid}/{name}': data for wnid, name, (data, _) in zip(wnids, names, photographs)})
    )
    assert (
        make_record.main([str(tmp_path / 'train.tar'), str(tmp_path / 'train'), '--shuffle', '0', '--jobs', '1']) == 0
    )
    source = RecordSource(str(tmp_path / 'train.rec'))
    assert len(source) == len(photographs)
    for position, (data, pixels) in enumerate(photographs):
        label = sorted(set(wnids)).index(wnids[position])
        assert source.read(position) == (data, label)
        shorter = min(pixels.shape[1:])
        side = min(shorter, 224)
        out = np.empty((3, side, side), np.float32)
        assert (
            ImageReader(source, CentreView((3, side, side), shorter, 0.0, 1.0), 1000).read_into(out, position, None)
            == label
        )
        np.testing.assert_array_equal(out, centre(pixels, side))


def test_photographs_reach_the_network_pixel_for_pixel(photographs, tmp_path):
    """Those of the commonest size, through the decoding processes, into a network that hands its input on."""
    lengths = [min(pixels.shape[1:]) for _, pixels in photographs]
    shorter = max((length for length in set(lengths) if length >= 224), key=lengths.count)
    chosen = [photograph for photograph, length in zip(photographs, lengths) if length == shorter]
    rec = save_records(tmp_path / 'val', [data for data, _ in chosen], [0] * len(chosen))
    parser = argparse.ArgumentParser()
    add_imagenet_args(parser)
    args = parser.parse_args(
        ['--data-val', rec, '--resize', str(shorter), '--rgb-mean', '0', '--rgb-std', '1', '--data-nthreads', '1']
    )
    validation = imagenet_from_args(args, (3, 224, 224), 1000, 8, with_training=False).validation
    module = mx.mod.Module(mx.sym.identity(mx.sym.Variable('data')), label_names=None)
    module.bind(validation.provide_data, for_training=False)
    module.init_params()
    compared = 0
    for batch in validation:
        module.forward(batch, is_train=False)
        for image, position in zip(module.get_outputs()[0].asnumpy(), batch.index):
            np.testing.assert_array_equal(image, centre(chosen[position][1], 224))
            compared += 1
    assert compared == len(chosen) > 10
