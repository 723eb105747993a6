"""What a symbol says of its images goes wherever the symbol goes, and damaged text is refused."""

import json

import numpy as np
import pytest

from graphs.classifier import classifier_parameters, with_classes
from graphs.preprocessing import (
    PREPROCESSING,
    Preprocessing,
    parse_preprocessing,
    preprocessing_of,
    with_preprocessing,
    without_preprocessing,
)
from graphs.strip import strip
from runtime import mx
from runtime.errors import GraphError
from symbols import resnet
from train.finetune import restart_weights

GIVEN = Preprocessing((1.0, 2.0, 3.0), (4.5,), 73, ('red fox', 'été', 'bee'), 'images')


@pytest.fixture
def symbol():
    with mx.name.NameManager():
        return resnet.network((1, 1), (8, 16), resnet.bottleneck_unit, True, 3, (3, 8, 8), ('block',), 'weight')


def parameters(symbol):
    """Random parameters, by role."""
    random = np.random.RandomState(0)
    arguments, _, states = symbol.infer_shape(data=(1, 3, 8, 8))
    names = symbol.list_arguments(), symbol.list_auxiliary_states()
    arrays = [
        {name: mx.nd.array(random.uniform(0.5, 1, shape)) for name, shape in zip(*both)}
        for both in zip(names, (arguments, states))
    ]
    return [{name: array for name, array in found.items() if name not in ('data', 'softmax_label')} for found in arrays]


def test_the_symbol_carries_it_through_files_and_strip(symbol, tmp_path):
    carrying = with_preprocessing(symbol, GIVEN, (3, 8, 8))
    assert preprocessing_of(symbol) is None
    carrying.save(str(tmp_path / 'net-symbol.json'))
    read = mx.sym.load(str(tmp_path / 'net-symbol.json'))
    assert preprocessing_of(read) == GIVEN
    arg_params, aux_params = parameters(read)
    arg_params['lambda_block'][0] = 0
    for options in ({}, {'fold_bn': True}, {'for_training': True}):
        stripped = strip(read, arg_params, aux_params, {'data': (1, 3, 8, 8)}, **options)
        assert preprocessing_of(stripped.symbol) == GIVEN


def test_it_does_not_make_another_network(symbol):
    carrying = with_preprocessing(symbol, GIVEN)
    assert carrying.tojson() != symbol.tojson()
    assert without_preprocessing(carrying.tojson()) == without_preprocessing(symbol.tojson())
    assert without_preprocessing(symbol.tojson()) != without_preprocessing(with_classes(symbol, 4).tojson())
    assert without_preprocessing('[{') == '[{'


def test_names_of_too_many_classes_are_left_out():
    many = GIVEN._replace(classes=tuple(f'class with a long name {number}' for number in range(5000)))
    assert parse_preprocessing(many.to_text(), 'x') == GIVEN._replace(classes=())


@pytest.mark.parametrize(
    'change',
    [
        {'mean': [1, 2]},
        {'mean': 'x'},
        {'std': [0]},
        {'std': [float('nan')]},
        {'resize': 0},
        {'resize': '7'},
        {'resize': 10**9},
        {'classes': [1]},
        {'classes': None},
        {'dataset': 3},
        {'crop': 'five'},
    ],
)
def test_damaged_text_is_refused(symbol, change):
    text = json.dumps({**json.loads(GIVEN.to_text()), **change})
    for damaged in (text, text[:-3], '[]', '[' * 10000):
        symbol.get_internals()['data']._set_attr(**{PREPROCESSING: damaged})
        with pytest.raises(GraphError, match='net: __preprocessing__ is damaged'):
            preprocessing_of(symbol, 'net')


# Another number of classes


def test_the_classifier_is_found_and_widened(symbol):
    assert classifier_parameters(symbol) == ('fc1_weight', 'fc1_bias')
    assert with_classes(symbol, 3) is symbol  # a run that is resumed without --finetune has the same symbol
    wider = with_classes(symbol, 7)
    assert wider.infer_shape(data=(2, 3, 8, 8))[1] == [(2, 7)]
    assert classifier_parameters(mx.sym.Variable('data') * 2) == ()


def test_other_classes_start_the_classifier_anew_and_keep_the_rest(symbol, caplog):
    caplog.set_level('INFO')
    arg_params, aux_params = parameters(symbol)
    wider = with_classes(symbol, 7)
    shapes = {name: array.shape for name, array in {**arg_params, **aux_params}.items()}
    shapes.update(fc1_weight=(7, 16), fc1_bias=(7,))
    found, states = restart_weights(
        arg_params, aux_params, shapes, 'runs/old,3', classifier=classifier_parameters(wider), seed=1
    )
    assert [record.getMessage() for record in caplog.records] == [
        '--finetune runs/old,3: it has 3 classes, this network has 7; the classifier (fc1_weight, fc1_bias) starts '
        'from random values'
    ]
    assert states.keys() == aux_params.keys()
    for name, array in found.items():
        assert array.shape == shapes[name]
        if not name.startswith('fc1'):
            np.testing.assert_array_equal(array.asnumpy(), arg_params[name].asnumpy())
    weight = found['fc1_weight'].asnumpy()
    assert 0.005 < weight.std() < 0.02
    assert not found['fc1_bias'].asnumpy().any()
    again, _ = restart_weights(
        arg_params, aux_params, shapes, 'runs/old,3', classifier=classifier_parameters(wider), seed=1
    )
    np.testing.assert_array_equal(again['fc1_weight'].asnumpy(), weight)
