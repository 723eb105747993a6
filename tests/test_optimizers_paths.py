"""One optimizer, many doors: Updater, Module, Trainer and kvstores, on one device and several, interrupted and not,
must all move a network like the twin.

The network is linear, so that its gradients are known: the output is data · [weight, γ, bias, λ], and the gradient of
each parameter is its columns of the data, summed over the batch.
"""

import json

import numpy as np
import pytest
from helpers.apg_twin import Twin
from helpers.cluster import Cluster
from helpers.schedules import (
    BATCH,
    CONTEXTS,
    DROP,
    SETTINGS,
    WIDTHS,
    batches,
    gradients_of,
    initial,
    kvstore_of,
    module,
    moved,
    network,
    optimizer,
    schedule,
)

import optimizers  # noqa: F401  (registers 'apg')
from optimizers.plain_data import from_plain, to_plain
from runtime import mx
from train.distributed.encoding import decode, encode


def expected(decays=('conv0_weight', 'bn0_gamma')):
    settings = {**SETTINGS, 'rescale_grad': 1 / BATCH}
    twins = {
        name: Twin(value, 'lambda' in name, **{**settings, 'wd': SETTINGS['wd'] * (name in decays)})
        for name, value in initial().items()
    }
    rate = schedule()
    for count, batch in enumerate(batches(), start=1):
        eta = rate(count)
        for name, gradient in gradients_of(batch).items():
            twins[name].step(gradient, eta)
    return {name: twin.value for name, twin in twins.items()}


def check(found, twin=None):
    for name, value in (twin or expected()).items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=3e-6, err_msg=name)


# Updater


def updated(updater, values, data, keys):
    arrays = {name: mx.nd.array(value) for name, value in values.items()}
    for batch in data:
        gradients = gradients_of(batch)
        updater(
            [keys[name] for name in arrays], [mx.nd.array(gradients[name]) for name in arrays], list(arrays.values())
        )
    return {name: array.asnumpy() for name, array in arrays.items()}


@pytest.mark.parametrize('kind', ['int', 'str', 'str with names'])
def test_updater(kind):
    keys = {name: index if kind == 'int' else name for index, name in enumerate(WIDTHS)}
    known = {} if kind == 'str' else {'param_idx2name': dict(enumerate(WIDTHS))}
    found = updated(mx.optimizer.get_updater(optimizer(**known)), initial(), batches(), keys)
    # With no names told, MXNet knows no reason to spare biases from decay; APG alone spares λ.
    check(found, expected(('conv0_weight', 'bn0_gamma', 'fc1_bias')) if kind == 'str' else None)


def test_sent_as_plain_data():
    """As a parameter server gets it."""
    sent = from_plain(decode(encode(to_plain(optimizer(param_idx2name=dict(enumerate(WIDTHS)))))))
    check(updated(mx.optimizer.get_updater(sent), initial(), batches(), {name: name for name in WIDTHS}))


# Module


@pytest.mark.parametrize('on_kvstore', ['0', '1'])
@pytest.mark.parametrize(('contexts', 'kvstore'), [(1, None), (1, 'local'), (2, 'local'), (1, 'device'), (2, 'device')])
def test_module(contexts, kvstore, on_kvstore, monkeypatch):
    monkeypatch.setenv('MXNET_UPDATE_ON_KVSTORE', on_kvstore)
    made = module(contexts, kvstore_of(kvstore, contexts), initial())
    assert bool(made._update_on_kvstore) == (kvstore is not None and on_kvstore == '1')
    check(moved(made, batches()))


@pytest.mark.parametrize('on_kvstore', ['0', '1'])
@pytest.mark.parametrize('contexts', CONTEXTS)
def test_module_resumes_right_where_the_learning_rate_drops(contexts, on_kvstore, tmp_path, monkeypatch):
    monkeypatch.setenv('MXNET_UPDATE_ON_KVSTORE', on_kvstore)
    states = str(tmp_path / 'optimizer.states')
    first = module(contexts, kvstore_of('local', contexts), initial())
    half = moved(first, batches()[:DROP])
    first.save_optimizer_states(states)
    resumed = module(contexts, kvstore_of('local', contexts), half, begin=DROP)
    resumed.load_optimizer_states(states)
    check(moved(resumed, batches()[DROP:]))


DIST_WORKER = """
from train.distributed.role import serve
serve()  # a server or the scheduler stays in here
import json, sys
from train.distributed.parameter_servers import ParameterServers
from helpers.schedules import BATCH, batches, initial, module, moved
kvstore = ParameterServers('dist_sync').store
made = module(1, kvstore, initial(), batch=BATCH // kvstore.num_workers)
found = moved(made, [batch[kvstore.rank::kvstore.num_workers] for batch in batches()])
if kvstore.rank == 0:
    print(json.dumps({name: value.tolist() for name, value in found.items()}))
"""


def test_module_of_two_workers_and_a_server():
    with Cluster(DIST_WORKER, workers=2) as cluster:
        outputs = [process.communicate(timeout=150)[0] for process in cluster.workers]
        assert [process.wait(timeout=20) for process in cluster.processes] == [0] * 4
    check({name: np.array(value) for name, value in json.loads(''.join(outputs)).items()})


# gluon.Trainer


def trainer(contexts, kvstore, on_kvstore, values):
    block = mx.gluon.SymbolBlock(network(), [mx.sym.Variable('data')])
    block.initialize(ctx=CONTEXTS[contexts])
    for name, parameter in block.collect_params().items():
        parameter.set_data(mx.nd.array(values[name]))
        parameter.wd_mult = float(name in ('conv0_weight', 'bn0_gamma'))  # as Module does by name
    for context in CONTEXTS[contexts]:
        block(mx.nd.zeros((1, sum(WIDTHS.values())), context))  # a SymbolBlock learns its shapes from data
    settings = {**SETTINGS, 'lr_scheduler': schedule()}
    return block, mx.gluon.Trainer(
        block.collect_params(), 'apg', settings, kvstore=kvstore, update_on_kvstore=on_kvstore
    )


def stepped(block, made, data):
    contexts = next(iter(block.collect_params().values())).list_ctx()
    for batch in data:
        parts = mx.gluon.utils.split_and_load(mx.nd.array(batch), contexts)
        with mx.autograd.record():
            losses = [block(part) for part in parts]
        mx.autograd.backward(losses)
        made.step(BATCH)
    values = {
        name: [array.asnumpy() for array in parameter.list_data()] for name, parameter in block.collect_params().items()
    }
    for name, arrays in values.items():
        for array in arrays:
            np.testing.assert_array_equal(array, arrays[0], err_msg=f'{name} differs between devices')
    return {name: arrays[0] for name, arrays in values.items()}


TRAINERS = [
    (1, None, None),
    (1, 'device', None),
    (1, 'local', True),
    (1, 'local', False),
    (2, 'device', None),
    (2, 'local', True),
    (2, 'device', False),
]


@pytest.mark.parametrize(('contexts', 'kvstore', 'on_kvstore'), TRAINERS)
def test_trainer(contexts, kvstore, on_kvstore):
    block, made = trainer(contexts, kvstore_of(kvstore, contexts), on_kvstore, initial())
    check(stepped(block, made, batches()))
    if on_kvstore is not None:
        assert made._update_on_kvstore == on_kvstore


@pytest.mark.parametrize(('contexts', 'kvstore', 'on_kvstore'), TRAINERS)
def test_trainer_resumes_right_where_the_learning_rate_drops(contexts, kvstore, on_kvstore, tmp_path):
    states = str(tmp_path / 'trainer.states')
    block, made = trainer(contexts, kvstore_of(kvstore, contexts), on_kvstore, initial())
    half = stepped(block, made, batches()[:DROP])
    made.save_states(states)
    block, resumed = trainer(contexts, kvstore_of(kvstore, contexts), on_kvstore, half)
    resumed.load_states(states)
    check(stepped(block, resumed, batches()[DROP:]))


def test_a_trainer_tells_parameter_servers_the_names_behind_its_keys():
    """The parameters themselves do not travel with an optimizer."""
    _, made = trainer(1, None, None, initial())
    sent = from_plain(to_plain(made._optimizer))
    assert [sent.parameter_name(index) for index in range(len(WIDTHS))] == sorted(WIDTHS)
