"""Accuracy as ``tools/evaluate.py`` counts it: by hand, with ties, and of networks that compute nothing sensible."""

import json
import re

import numpy as np
import pytest

from formats.checkpoint_files import save_model
from runtime import mx
from runtime.errors import UserError
from tools import compare_checkpoints, evaluate
from train.data.datasets import eval_iterator, load_dataset
from train.evaluation import score
from train.metrics import Tally


def in_turn(outputs):
    """A network that puts out rows of ``outputs`` in the order in which images come."""
    done = [0]

    def predict(images):
        done[0] += len(images)
        return [np.resize(outputs, (done[0], outputs.shape[1]))[-len(images) :]]

    return predict


@pytest.fixture(scope='module')
def digits():
    return load_dataset('digits')


def test_scores_are_those_of_numpy(digits):
    logits = np.random.RandomState(0).normal(size=(len(digits.test_labels), 10)).astype(np.float32)
    labels = np.asarray(digits.test_labels)
    averages, count = score(in_turn(logits), eval_iterator(digits, 64), top_k=3)
    order = np.argsort(-logits, axis=1)
    assert count == len(labels)
    assert averages['accuracy'] == pytest.approx((order[:, 0] == labels).mean())
    assert averages['top_k_accuracy_3'] == pytest.approx((order[:, :3] == labels[:, None]).any(axis=1).mean())
    exponents = np.exp(logits.astype(np.float64))
    loss = -np.log(exponents[np.arange(count), labels] / exponents.sum(axis=1)).mean()
    assert averages['cross-entropy'] == pytest.approx(loss)


def test_large_logits_that_differ_stay_different(digits):
    """In single precision the probabilities of all but the first class would be 0, and equal."""
    logits = np.tile(1e4 - 60 * np.arange(10, dtype=np.float32), (len(digits.test_labels), 1))
    averages, _ = score(in_turn(logits), eval_iterator(digits, 64), top_k=5)
    assert averages['top_k_accuracy_5'] == pytest.approx((np.asarray(digits.test_labels) < 5).mean())


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_an_error(digits, value):
    logits = np.zeros((1, 10), np.float32)
    logits[0, 3] = value
    with pytest.raises(UserError, match='NaN or infinity'):
        score(in_turn(logits), eval_iterator(digits, 64))


def test_a_constant_output_gets_nothing_right(digits):
    averages, _ = score(in_turn(np.ones((1, 10), np.float32)), eval_iterator(digits, 64), top_k=5)
    assert (averages['accuracy'], averages['top_k_accuracy_5']) == (0, 0)


def test_a_tie_counts_as_wrong_first():
    tally = Tally(top_k=2)
    probabilities = np.array([[0.4, 0.4, 0.2], [0.4, 0.3, 0.3], [0.25, 0.25, 0.5], [np.nan, 0.5, 0.5]])
    tally.add(probabilities, np.array([0, 0, 0, 1]))
    assert (tally.sums['correct'], tally.sums['in_top_k']) == (1, 2)


def test_the_tally_of_a_card_counts_ties_alike():
    torch = pytest.importorskip('torch')
    from train.engines.torch_tally import DeviceTally

    probabilities = np.array([[0.4, 0.4, 0.2], [0.4, 0.3, 0.3], [0.25, 0.25, 0.5]])
    tally = DeviceTally(2, 'cpu')
    tally.add(torch.tensor(probabilities), torch.tensor([0, 0, 0]))
    assert (tally.sums['correct'], tally.sums['in_top_k']) == (1, 2)


def test_another_number_of_classes_is_named(digits):
    with pytest.raises(UserError, match='has 7 classes, the data set 10'):
        score(in_turn(np.zeros((1, 7), np.float32)), eval_iterator(digits, 64), num_classes=10)


def evaluated(prefix, *options):
    return evaluate.main([f'{prefix}:1', '--dataset', 'digits', '--json', *options])


def test_the_tool_ends_in_an_error_on_nan(tmp_path, capsys):
    symbol = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=10, name='fc')
    shape = load_dataset('digits').image_shape
    params = {'fc_weight': mx.nd.zeros((10, int(np.prod(shape)))), 'fc_bias': mx.nd.array(np.arange(10))}
    save_model(str(tmp_path / 'net'), 1, symbol, params, {})
    assert evaluated(str(tmp_path / 'net')) == 0
    assert json.loads(capsys.readouterr().out)['top_k_accuracy_5'] == pytest.approx(0.5, abs=0.1)
    params['fc_bias'][:] = 3e38
    params['fc_weight'][:] = 3e38
    save_model(str(tmp_path / 'net'), 1, symbol, params, {})
    with pytest.raises(UserError, match='NaN or infinity'):
        evaluated(str(tmp_path / 'net'))


@pytest.mark.parametrize(
    'options', [['--rgb-std', '0,1,1'], ['--rgb-std', 'nan,1,1'], ['--rgb-mean', 'nan,1,1'], ['--rgb-std', '1,-1,1']]
)
@pytest.mark.parametrize('tool', [evaluate, compare_checkpoints])
def test_settings_that_make_every_image_alike_are_refused(tool, options):
    beginning = ['x:1'] if tool is evaluate else ['x:1', 'x:1']
    with pytest.raises(UserError, match=re.escape(options[1])):
        tool.main([*beginning, *options])
