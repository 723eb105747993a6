"""APG against the NumPy twin, through MXNet's bare Updater: every setting, every type, every schedule."""

import itertools
import pickle

import numpy as np
import pytest
from helpers.apg_twin import Twin

import optimizers
from runtime import mx
from runtime.errors import TrainingError, UserError

NAMES = {0: 'stage1_unit1_conv1_weight', 1: 'lambda_block', 2: 'bn0_gamma', 3: 'fc1_bias'}
SHAPES = {0: (4, 3, 3, 3), 1: (7,), 2: (5,), 3: (6,)}
DECAYED = (0, 2)  # MXNet decays what ends in _weight or _gamma
STEPS = 12

SCHEDULES = {
    'constant': lambda: mx.lr_scheduler.FactorScheduler(step=10**6, base_lr=0.1),
    'drops': lambda: mx.lr_scheduler.MultiFactorScheduler(step=[3, 5, 9], factor=0.1, base_lr=0.5),
    'warm-up': lambda: mx.lr_scheduler.PolyScheduler(max_update=20, base_lr=0.4, warmup_steps=6, warmup_begin_lr=0.0),
    'pauses': lambda: Pauses(),
}


class Pauses(mx.lr_scheduler.LRScheduler):
    """A learning rate that is 0 at the first step, and again for a while after."""

    def __call__(self, num_update):
        return 0.0 if num_update in (1, 5, 6, 7) else 0.3 / num_update


def gradients(dtype, scale=1.0, seed=3):
    """STEPS gradients of each parameter, exactly representable in ``dtype``."""
    random = np.random.default_rng(seed)
    return [
        {key: (scale * random.normal(size=shape)).astype(dtype) for key, shape in SHAPES.items()} for _ in range(STEPS)
    ]


def initial(dtype, seed=5):
    random = np.random.default_rng(seed)
    values = {key: random.normal(size=shape).astype(dtype) for key, shape in SHAPES.items()}
    values[1] = random.uniform(0.1, 1, SHAPES[1]).astype(dtype)
    return values


def trained(optimizer, values, steps):
    """The parameters after an Updater of ``optimizer`` has seen ``steps``, and the Updater."""
    updater = mx.optimizer.get_updater(optimizer)
    arrays = {key: mx.nd.array(value, dtype=value.dtype) for key, value in values.items()}
    for step in steps:
        for key, weight in arrays.items():
            updater(key, mx.nd.array(step[key], dtype=step[key].dtype), weight)
    return {key: array.asnumpy() for key, array in arrays.items()}, updater


def trained_twins(values, steps, schedule, lr_mult=(), wd=0.0, wd_mult=(), **settings):
    twins = {
        key: Twin(value, key == 1, wd=wd * dict(wd_mult).get(key, 1.0) * (key in DECAYED), **settings)
        for key, value in values.items()
    }
    for count, step in enumerate(steps, start=1):
        for key, twin in twins.items():
            twin.step(step[key], schedule(count) * dict(lr_mult).get(key, 1.0))
    return {key: twin.value for key, twin in twins.items()}


def test_the_first_parameter_takes_a_drop_one_update_late_by_request():
    """As in the authors' code, where the rate is read before the update is counted."""
    values, steps, schedule = initial(np.float32), gradients(np.float32), SCHEDULES['drops']()
    settings = {'gamma': 0.05, 'momentum': 0.9}
    optimizer = mx.optimizer.create(
        'apg', param_idx2name=NAMES, lr_scheduler=SCHEDULES['drops'](), first_rate_late=True, **settings
    )
    found, _ = trained(optimizer, values, steps)
    rates = [schedule(count) for count in range(STEPS + 1)]
    assert len(set(rates)) == 4
    for key, value in values.items():
        twin = Twin(value, key == 1, **settings)
        for count, step in enumerate(steps, start=1):
            twin.step(step[key], rates[count - 1] if key == 0 else rates[count])
        np.testing.assert_allclose(found[key], twin.value, atol=5e-6 * np.abs(twin.value).max(), err_msg=NAMES[key])


def check(settings, schedule='drops', dtype=np.float32, tolerance=5e-6, lr_mult=(), wd_mult=(), scale=1.0):
    """Train both, and compare every parameter to ``tolerance`` of its largest value."""
    optimizer = mx.optimizer.create('apg', param_idx2name=NAMES, lr_scheduler=SCHEDULES[schedule](), **settings)
    optimizer.set_lr_mult({NAMES[key]: factor for key, factor in lr_mult})
    optimizer.set_wd_mult({NAMES[key]: factor for key, factor in wd_mult})
    values, steps = initial(dtype), gradients(dtype, scale)
    found, _ = trained(optimizer, values, steps)
    settings = {name: value for name, value in settings.items() if name != 'multi_precision'}
    expected = trained_twins(values, steps, SCHEDULES[schedule](), lr_mult, wd_mult=wd_mult, **settings)
    for key, name in NAMES.items():
        assert found[key].dtype == dtype
        np.testing.assert_allclose(
            found[key],
            expected[key],
            rtol=0,
            atol=tolerance * np.abs(expected[key]).max(),
            err_msg=f'{name} {settings} {schedule}',
        )
    return found


@pytest.mark.parametrize('name', ['apg', 'APG', 'apgnag'])
def test_is_created_by_its_name_and_by_the_authors(name):
    assert isinstance(mx.optimizer.create(name, gamma=0.5), optimizers.APG)


@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_equals_the_twin_over_the_grid(momentum, schedule):
    for wd, clip, rescale, gamma in itertools.product((0.0, 0.05), (None, 0.4), (1.0, 1 / 64), (0.0, 0.02)):
        check(
            {'momentum': momentum, 'wd': wd, 'clip_gradient': clip, 'rescale_grad': rescale, 'gamma': gamma}, schedule
        )


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('nonnegative', [True, False])
def test_lambda_may_be_kept_from_going_below_zero(nonnegative, momentum, schedule):
    found = check({'momentum': momentum, 'gamma': 0.3, 'nonnegative': nonnegative}, schedule, scale=2.0)
    assert (found[1] < 0).any() != nonnegative


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('schedule', ['drops', 'warm-up', 'pauses'])
def test_multi_precision_moves_a_float32_master_copy(momentum, schedule):
    settings = {
        'momentum': momentum,
        'wd': 0.05,
        'gamma': 0.02,
        'clip_gradient': 1.0,
        'rescale_grad': 0.5,
        'multi_precision': True,
    }
    check(settings, schedule, np.float16, tolerance=5e-4)
    check(settings, schedule, np.float32)


def test_the_master_copy_has_float32_precision():
    optimizer = mx.optimizer.create(
        'apg', param_idx2name=NAMES, multi_precision=True, learning_rate=1e-4, momentum=0.9, wd=0.01
    )
    values, steps = initial(np.float16), gradients(np.float16)
    _, updater = trained(optimizer, values, steps)
    expected = trained_twins(values, steps, lambda count: 1e-4, momentum=0.9, wd=0.01)
    for key in NAMES:
        master = updater.states[key][0]
        assert master.dtype == np.float32
        np.testing.assert_allclose(master.asnumpy(), expected[key], rtol=0, atol=2e-6)  # float16 would be off by 5e-4


@pytest.mark.parametrize(('dtype', 'tolerance'), [(np.float16, 1e-2), (np.float64, 1e-7)])
@pytest.mark.parametrize('schedule', ['drops', 'pauses'])
@pytest.mark.filterwarnings('ignore:Accumulating with float16')
def test_other_types(dtype, tolerance, schedule):
    check(
        {'momentum': 0.9, 'wd': 0.05, 'gamma': 0.02, 'clip_gradient': 1.0, 'rescale_grad': 0.5},
        schedule,
        dtype,
        tolerance,
    )


@pytest.mark.parametrize('multi_precision', [True, False])
def test_multipliers_of_learning_rate_and_decay(multi_precision):
    check(
        {'momentum': 0.9, 'wd': 0.02, 'gamma': 0.02, 'multi_precision': multi_precision},
        lr_mult=((0, 0.5), (1, 2.0), (2, 0.0)),
        wd_mult=((0, 3.0), (2, 0.0)),
    )


def test_lambda_never_decays():
    """Not even when it is named among the decayed, or no names are known to MXNet, which then decays everything."""
    optimizer = mx.optimizer.create('apg', learning_rate=0.1, wd=0.5, gamma=0.0, momentum=0.0)
    updater = mx.optimizer.get_updater(optimizer)
    weight, lambda_ = mx.nd.ones((3,)), mx.nd.ones((3,))
    updater('fc1_weight', mx.nd.zeros((3,)), weight)
    updater('lambda_block', mx.nd.zeros((3,)), lambda_)
    np.testing.assert_allclose(weight.asnumpy(), 0.95)
    np.testing.assert_array_equal(lambda_.asnumpy(), 1)


def test_small_gradients_let_lambda_reach_zero_exactly_and_stay():
    optimizer = mx.optimizer.create('apg', learning_rate=0.1, gamma=0.1, momentum=0.9)
    updater, lambda_ = mx.optimizer.get_updater(optimizer), mx.nd.ones((2, 4))
    random, trail = np.random.default_rng(0), []
    for _ in range(120):
        gradient = random.uniform(-0.05, 0.05, (2, 4))
        gradient[1] = -0.2  # pulls harder than γ
        updater('lambda_group', mx.nd.array(gradient), lambda_)
        trail.append(lambda_.asnumpy())
    first_zero = np.argmax(np.array(trail)[:, 0].max(axis=1) == 0)
    assert 10 < first_zero < 100
    assert not np.array(trail)[first_zero:, 0].any()
    assert (trail[-1][1] > 1).all()


def test_another_name_for_lambda():
    optimizer = mx.optimizer.create('apg', learning_rate=0.1, gamma=1.0, momentum=0.0, lambda_name='alpha')
    updater, alpha, beta = mx.optimizer.get_updater(optimizer), mx.nd.ones((1,)), mx.nd.ones((1,))
    updater('alpha', mx.nd.zeros((1,)), alpha)
    updater('lambda', mx.nd.zeros((1,)), beta)
    assert alpha.asscalar() == pytest.approx(0.9)
    assert beta.asscalar() == 1


@pytest.mark.parametrize('clip', [None, 1.0])
@pytest.mark.parametrize('name', ['conv_weight', 'lambda_block'])
@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_nan_gradients_stay_visible(name, momentum, clip, dtype):
    optimizer = mx.optimizer.create(
        'apg', learning_rate=0.1, momentum=momentum, wd=1e-4, clip_gradient=clip, multi_precision=True
    )
    updater, weight = mx.optimizer.get_updater(optimizer), mx.nd.ones((3,), dtype=dtype)
    for gradient in ([0.0, np.nan, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]):
        updater(name, mx.nd.array(gradient, dtype=dtype), weight)
        assert list(np.isnan(weight.asnumpy())) == [False, True, False]


@pytest.mark.parametrize(
    'settings',
    [{'gamma': -1e-9}, {'gamma': float('nan')}, {'momentum': 1.0}, {'momentum': -0.1}, {'momentum': float('nan')}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        mx.optimizer.create('apg', **settings)


def test_a_key_without_a_name_is_an_error():
    updater = mx.optimizer.get_updater(mx.optimizer.create('apg', param_idx2name=NAMES))
    with pytest.raises(TrainingError, match='parameter 17'):
        updater(17, mx.nd.ones((2,)), mx.nd.ones((2,)))


@pytest.mark.parametrize('name', ['conv_weight', 'lambda_block'])
def test_sparse_gradients_are_refused(name):
    updater, weight = mx.optimizer.get_updater(mx.optimizer.create('apg')), mx.nd.ones((4, 2))
    with pytest.raises(UserError, match=f'{name}.*row_sparse'):
        updater(name, mx.nd.ones((4, 2)).tostype('row_sparse'), weight)
    np.testing.assert_array_equal(weight.asnumpy(), 1)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_survives_pickling_in_the_middle_of_a_run(protocol):
    """Protocol 0 is what a dist kvstore sends its servers."""
    values, steps = initial(np.float32), gradients(np.float32)
    whole, _ = trained(
        mx.optimizer.create('apg', param_idx2name=NAMES, lr_scheduler=SCHEDULES['drops'](), wd=0.1), values, steps
    )
    half, updater = trained(
        mx.optimizer.create('apg', param_idx2name=NAMES, lr_scheduler=SCHEDULES['drops'](), wd=0.1), values, steps[:5]
    )
    states, optimizer = pickle.loads(pickle.dumps((updater.states, updater.optimizer), protocol))
    resumed = mx.optimizer.get_updater(optimizer)
    resumed.set_states(pickle.dumps(states))
    arrays = {key: mx.nd.array(value) for key, value in half.items()}
    for step in steps[5:]:
        resumed(list(arrays), [mx.nd.array(step[key]) for key in arrays], list(arrays.values()))
    for key, array in arrays.items():
        np.testing.assert_array_equal(array.asnumpy(), whole[key])
