"""The whole path of a user with a folder of images: one command to train, one to strip, one to predict."""

import json
import os

import cv2
import numpy as np
import pytest
from helpers.tiny_runs import log_lines, metrics, refused

from formats.checkpoint_files import load_checkpoint, named_checkpoint
from graphs.preprocessing import preprocessing_of
from symbols import get_symbol
from tools import compare_checkpoints, convert, evaluate, make_record, predict, strip_params
from train import small_sets, train_cifar, train_imagenet
from train.data.class_names import CLASS_NAMES

CLASSES = ['ant', 'bee', 'cat', 'dog', 'red fox', 'red panda']
TRAINING, VALIDATION = 3, 2  # images of a class


def write_images(folder, classes=CLASSES, size=(40, 44)):
    """A folder of noise in as many colours as there are classes."""
    random = np.random.RandomState(0)
    for part, count in (('train', TRAINING), ('val', VALIDATION)):
        for label, name in enumerate(classes):
            os.makedirs(str(folder / part / name), exist_ok=True)
            for number in range(count):
                image = random.randint(0, 80, (*size, 3)).astype(np.uint8)
                image[..., label % 3] += 70 * (1 + label // 3)
                cv2.imwrite(str(folder / part / name / f'{number}.png'), image)
    return str(folder)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'))


@pytest.fixture(scope='module')
def trained(images, tmp_path_factory):
    """The prefix of a run by the shortest command that there is, but for the number of epochs."""
    prefix = str(tmp_path_factory.mktemp('runs') / 'mine')
    words = ['--data-dir', images, '--network', 'resnet', '--num-layers', 18, '--model-prefix', prefix]
    assert train_imagenet.main([*map(str, words), '--num-epochs', '2']) == 0
    return prefix


@pytest.fixture(scope='module')
def stripped(trained):
    out = f'{trained}-small'
    assert strip_params.main([f'{trained}:2', '--out', out]) == 0
    return out


def picture_of(images, name):
    return os.path.join(images, 'val', name, '0.png')


def predicted(capsys, *words):
    """The parsed output of predict.py --json."""
    capsys.readouterr()
    assert predict.main([*map(str, words), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_the_log_says_what_was_chosen(trained):
    text = '\n'.join(log_lines(trained))
    for words in (
        '18 training images in 6 classes: ant, bee, cat, dog, red fox, red panda',
        '--image-shape 3,32,32: the shorter side of the images is 40 pixels in the median',
        '--stem 1: a 3×3 convolution of stride 1',
        'Chosen for 18 training images, since not given: --batch-size 8 --lr-schedule cosine --lr 0.0063 --gamma 0.1',
    ):
        assert words in text
    assert metrics(trained)[-1]['validation_images'] == 12


def test_three_commands_name_the_classes(images, trained, stripped, capsys):
    """What is predicted is what the network computes of the image that training would show it."""
    (found,) = predicted(capsys, stripped, picture_of(images, 'red fox'), '--top-k', 6)
    probabilities = dict(found['classes'])
    assert sorted(probabilities) == CLASSES
    assert sum(probabilities.values()) == pytest.approx(1)
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    (whole,) = predicted(capsys, trained, picture_of(images, 'red fox'), '--top-k', 6)
    assert dict(whole['classes']) == pytest.approx(probabilities, abs=1e-4)
    by_hand = by_mxnet(stripped, picture_of(images, 'red fox'))
    assert probabilities == pytest.approx(dict(zip(CLASSES, by_hand)), abs=1e-5)
    assert predict.main([stripped, picture_of(images, 'bee'), '--top-k', '1']) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == picture_of(images, 'bee')
    assert second.endswith(tuple(CLASSES))


def by_mxnet(prefix, path):
    """The probabilities of an image of 40 × 44 pixels, by stock MXNet and OpenCV."""
    import mxnet as mx

    symbol, arg_params, aux_params = mx.model.load_checkpoint(prefix, 0)
    image = cv2.resize(cv2.imread(path), (37 * 44 // 40, 37), interpolation=cv2.INTER_CUBIC)
    top, left = (image.shape[0] - 32) // 2, (image.shape[1] - 32) // 2
    image = image[top : top + 32, left : left + 32, ::-1]
    pixels = (image - np.array([123.68, 116.28, 103.53])) / preprocessing_of(symbol).std
    executor = symbol.simple_bind(mx.cpu(), data=(1, 3, 32, 32), grad_req='null')
    executor.copy_params_from(arg_params, aux_params)
    outputs = executor.forward(data=mx.nd.array(pixels.transpose(2, 0, 1)[np.newaxis]))[0].asnumpy()[0]
    if abs(outputs.sum() - 1) < 1e-3 and outputs.min() >= 0:
        return outputs
    exponents = np.exp(outputs - outputs.max())
    return exponents / exponents.sum()


def test_tools_need_not_be_told_again(images, trained, stripped, tmp_path, capsys):
    """Evaluation finds data set, shape, mean and classes in the model; ONNX files carry them too."""
    capsys.readouterr()
    assert evaluate.main([f'{stripped}:0', '--data-dir', images, '--json']) == 0
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored['images'] == 12
    assert scored['accuracy'] == metrics(trained)[-1]['validation']['accuracy']
    assert compare_checkpoints.main([f'{trained}:2', f'{stripped}:0', '--outputs-only']) == 0
    pytest.importorskip('onnxruntime')
    out = str(tmp_path / 'mine.onnx')
    assert convert.main([stripped, '--to', 'onnx', '--out', out]) == 0
    (of_onnx,), (of_mxnet,) = (
        predicted(capsys, model, picture_of(images, 'cat'), '--top-k', 6) for model in (out, stripped)
    )
    assert dict(of_onnx['classes']) == pytest.approx(dict(of_mxnet['classes']), abs=1e-4)


def test_a_pretrained_network_with_other_classes(images, trained, tmp_path, capsys):
    """Of another set of images; shape, stem and normalisation are those of the network that the run starts from."""
    others = write_images(tmp_path / 'others', ['x', 'y'], size=(70, 90))
    prefix = str(tmp_path / 'tuned')
    words = ['--data-dir', others, '--network', 'resnet', '--num-layers', '18', '--finetune', f'{trained}:2']
    assert train_imagenet.main([*words, '--model-prefix', prefix, '--num-epochs', '1', '--lr', '0']) == 0
    text = '\n'.join(log_lines(prefix))
    assert f'--finetune {trained}:2: it has 6 classes, this network has 2; the classifier' in text
    assert '--image-shape 3,32,32: as in the network that the run starts from' in text
    assert '--stem 1: ' in text
    before, now = (load_checkpoint(*named_checkpoint(name))[1] for name in (f'{trained}:2', f'{prefix}:1'))
    np.testing.assert_array_equal(now['conv0_weight'].asnumpy(), before['conv0_weight'].asnumpy())
    (found,) = predicted(capsys, prefix, os.path.join(others, 'val', 'x', '0.png'))
    assert sorted(name for name, _ in found['classes']) == ['x', 'y']
    again = str(tmp_path / 'again')
    words = ['--data-dir', others, '--network', trained, '--model-prefix', again, '--num-epochs', '1']
    assert train_imagenet.main(words) == 0  # by the prefix alone
    assert '--finetune' in '\n'.join(log_lines(again))


def test_records_of_the_folder_do_as_well(images, tmp_path, capsys):
    """As the authors' scripts have it: a folder with train.rec and val.rec."""
    for part, more in (('train', ()), ('val', ('--classes', str(tmp_path / 'train.json')))):
        assert make_record.main([os.path.join(images, part), str(tmp_path / part), '--jobs', '1', *more]) == 0
    args = train_imagenet.parser().parse_args(['--data-dir', str(tmp_path)])
    train_imagenet.check_paths(args)
    assert (args.data_dir, args.data_train, args.data_val) == (None, f'{tmp_path}/train.rec', f'{tmp_path}/val.rec')
    assert train_imagenet.open_sources(args)['training'].classes == CLASSES


# What is refused


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('{model} nowhere.png', 'nowhere.png: no such file'),
        ('{model} {folder}', 'a folder, not a regular file'),
        ('{model} {folder}/notes.txt', 'notes.txt is no image that OpenCV can read'),
        ('nowhere/model {image}', 'nowhere/model'),
        ('{model}:9 {image}', '-0009.params: no such file'),
        ('{model} {image} --image-shape 1,32,32', 'image files have 3 channels'),
        ('{model} {image} --resize 5', '--resize 5: the centre of 32 x 32 pixels is larger than that'),
    ],
)
def test_predict_refuses(images, stripped, tmp_path, capfd, words, said):
    (tmp_path / 'notes.txt').write_text('x')
    words = words.format(model=stripped, folder=tmp_path, image=picture_of(images, 'cat').replace(' ', '_'))
    assert said in refused(capfd, tmp_path, *words.split(), script=predict)


def test_images_of_other_classes_are_refused(trained, tmp_path, capfd):
    others = write_images(tmp_path / 'others', ['ant', 'wolf'])
    line = refused(capfd, tmp_path, f'{trained}:2', '--data-dir', others, script=evaluate)
    assert "val has a folder 'wolf', which is none of the 6 classes" in line


def test_another_data_set_is_warned_of(tmp_path, capfd):
    """And a network of a data set by name knows its classes."""
    prefix = str(tmp_path / 'digits')
    words = ['--network', 'resnet-v1', '--num-layers', '20', '--dataset', 'digits', '--image-shape', '3,8,8']
    assert train_cifar.main([*words, '--num-epochs', '1', '--batch-size', '512', '--model-prefix', prefix]) == 0
    known = preprocessing_of(load_checkpoint(prefix, 1)[0])
    assert (known.dataset, known.classes, known.resize) == ('digits', CLASS_NAMES['digits'], 8)
    capfd.readouterr()
    words = [f'{prefix}:1', '--image-shape', '3,8,8', '--num-examples', '64']
    assert evaluate.main([*words, '--dataset', 'synthetic']) == 0
    assert 'warning: this network was trained on digits; its classes need not be those of synthetic' in (
        capfd.readouterr().err
    )
    assert evaluate.main([*words]) == 0
    printed = capfd.readouterr()
    assert 'on digits: ' in printed.out
    assert 'warning' not in printed.err


# Choices


def test_what_is_given_stays(images):
    words = ['--data-dir', images, '--image-shape', '3,64,64', '--stem', 'imagenet', '--batch-size', '4', '--lr', '1']
    parser = train_imagenet.parser()
    known = small_sets.given(parser, words)
    assert known == {'data_dir', 'image_shape', 'stem', 'batch_size', 'lr'}
    args = parser.parse_args(words)
    sources = train_imagenet.open_sources(args)
    small_sets.choose_network(args, known, sources)
    assert (args.image_shape, args.stem, args.num_classes) == ('3,64,64', 'imagenet', 6)


@pytest.mark.parametrize(
    ('count', 'batch', 'epochs', 'rate'),
    [(5, 4, 100, 0.0031), (300, 16, 84, 0.0125), (1000, 32, 49, 0.025), (5000, 128, 39, 0.1)],
)
def test_the_schedule_follows_the_number_of_images(count, batch, epochs, rate):
    args = train_imagenet.parser().parse_args(['--scale', 'none', '--optimizer', 'nag', '--image-shape', '3,32,32'])
    args.stem = None
    small_sets.choose_schedule(args, {'gamma'}, count)
    assert (args.batch_size, args.num_epochs, args.lr_schedule) == (batch, epochs, 'cosine')
    assert args.lr == pytest.approx(rate, rel=0.05)


def test_gamma_alone_takes_2_from_a_lambda(monkeypatch):
    """By hand: the sum of η γ / (1 - μ) over a cosine from η is half of it at a constant rate."""
    args = train_imagenet.parser().parse_args(['--num-layers', '18', '--image-shape', '3,32,32'])
    args.stem = None
    small_sets.choose_schedule(args, set(), 800)
    updates = args.num_epochs * (800 // args.batch_size)
    assert updates * args.lr / 2 * args.gamma / (1 - args.mom) == pytest.approx(2, rel=0.06)


def test_a_large_set_keeps_the_recipe():
    args = train_imagenet.parser().parse_args([])
    before = dict(vars(args))
    assert small_sets.choose_schedule(args, set(), small_sets.LARGE_SET) == []
    assert vars(args) == before


@pytest.mark.parametrize(('stem', 'side'), [(None, 16), (2, 32), (1, 64)])
@pytest.mark.parametrize('network', ['resnet', 'resnext'])
def test_stems(network, stem, side):
    internals = get_symbol(network, 18, 6, (3, 64, 64), scale='none', stem=stem).get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, 64, 64))
    assert dict(zip(internals.list_outputs(), shapes))['stage1_unit1_conv1_output'] == (1, 64, side, side)
