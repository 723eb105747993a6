"""A network is stripped, the stripped one is proved to compute the same, and what is left is written for stock MXNet.

proved = strip_with_proof(Network(symbol, arg_params, aux_params), {'data': (1, 3, 32, 32)})
write_stripped('run/stripped', proved)
"""

import json
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import numpy as np

from formats.checkpoint_files import params_path, symbol_path
from formats.params_file import save_params
from formats.symbol_file import save_symbol
from runtime.files import sha256, write_text, written_together

from .comparison import Difference, default_tolerance, noise
from .graph import Shape
from .predictor import Network
from .proof import outputs_of, prove
from .strip import strip, switched_off

PROOF_INPUTS = 8


class ProvedStrip(NamedTuple):
    """``network``: what is left. ``report``: what stayed and went, see ``history.History.report``. ``proof``: how far
    the two networks are apart. ``outputs``: those of the network before, on the images of the proof.
    """

    network: Network
    report: Dict[str, Any]
    proof: Difference
    outputs: List[np.ndarray]


def strip_with_proof(
    before: Network,
    data_shapes: Mapping[str, Shape],
    images: Optional[Dict[str, np.ndarray]] = None,
    threshold: float = 0.0,
    fold_bn: bool = False,
    for_training: bool = False,
    lambda_name: str = 'lambda',
    tolerance: Optional[float] = None,
    round_to: int = 1,
) -> ProvedStrip:
    """Strip ``before`` (see ``strip.strip`` for the settings) and prove it on ``images``, normal noise if left out.

    Raises ProofError where outputs differ by more than ``tolerance`` (see ``proof.prove``), and what ``strip`` raises.
    """
    images = noise(PROOF_INPUTS, data_shapes) if images is None else images
    exact = before._replace(arg_params=switched_off(before.arg_params, threshold, lambda_name))
    # The networks run one before and one after the stripping, so that the memory of the first is free for the second.
    expected = outputs_of(exact, images)
    stripped = strip(*before, data_shapes, threshold, fold_bn, for_training, lambda_name, round_to)
    after = Network(*stripped[:3])
    tolerance = default_tolerance(before.arg_params) if tolerance is None else tolerance
    return ProvedStrip(
        after, {**stripped.report, 'round_to': round_to}, prove(exact, after, images, tolerance, expected), expected
    )


def stripped_paths(prefix: str) -> List[str]:
    """The files of a stripped network: the graph, the parameters, and what stayed and went."""
    return [symbol_path(prefix), params_path(prefix, 0), f'{prefix}-structure.json']


def write_stripped(prefix: str, proved: ProvedStrip) -> None:
    """Write ``stripped_paths(prefix)``, all of them or none. The last one is written last, with the sums of the others:
    where it is missing, the process was killed while it put them in place.
    """
    paths = stripped_paths(prefix)
    with written_together(paths) as (graph, params, structure):
        save_symbol(graph, proved.network.symbol)
        save_params(params, proved.network.arg_params, proved.network.aux_params)
        sums = {os.path.basename(path): sha256(scratch) for path, scratch in zip(paths, (graph, params))}
        write_text(structure, json.dumps({**proved.report, 'sha256': sums}, indent=1) + '\n')
