"""How long networks take for a batch in MXNet on this machine, and which number of channels suits it."""

import time
from typing import Callable, Dict, List, Mapping, NamedTuple, TypeVar

import numpy as np

from runtime import mx

from .comparison import noise
from .graph import Shape
from .lambdas import is_lambda
from .predictor import Network, Predictor
from .strip import strip

WARM_UP, TURNS = 3, 21
Key = TypeVar('Key')
# What ``fastest_rounding`` tries: multiples that vector units have, and 1, which removes the most.
CANDIDATES = (1, 8, 16, 32)


class Rounding(NamedTuple):
    """``round_to``: the fastest multiple; ``milliseconds``: the median time of a batch for each that was tried."""

    round_to: int
    milliseconds: Dict[int, float]


def milliseconds(networks: Mapping[Key, Network], data_shapes: Mapping[str, Shape]) -> Dict[Key, float]:
    """The median time that a batch of ``data_shapes`` (dict name → shape, the batch first) takes, by the name of each
    of ``networks`` (dict name → ``Network``), which take turns.
    """
    batch = noise(next(iter(data_shapes.values()))[0], data_shapes)
    predictors = {name: Predictor(network) for name, network in networks.items()}
    seconds: Dict[Key, List[float]] = {name: [] for name in networks}
    for _ in range(WARM_UP + TURNS):
        for name, predict in predictors.items():
            start = time.perf_counter()
            predict(batch)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(measured[WARM_UP:])) for name, measured in seconds.items()}


def full_network(network: Network, data_shapes: Mapping[str, Shape], lambda_name: str = 'lambda') -> Network:
    """The whole network as it would be deployed without stripping: λ and batch normalisation are folded into the
    weights, and nothing is removed. Every λ is taken to be 1, which does not change the time.
    """
    arg_params = {
        name: mx.nd.ones_like(array) if is_lambda(name, lambda_name) else array
        for name, array in network.arg_params.items()
    }
    return Network(*strip(network.symbol, arg_params, network.aux_params, data_shapes, fold_bn=True)[:3])


def fastest_rounding(strip_to: Callable[[int], Network], data_shapes: Mapping[str, Shape]) -> Rounding:
    """The ``Rounding`` whose network is the fastest. ``strip_to`` strips with channels up to multiples of a number."""
    times = milliseconds({multiple: strip_to(multiple) for multiple in CANDIDATES}, data_shapes)
    return Rounding(min(times, key=lambda multiple: times[multiple]), times)
