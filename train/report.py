"""Log lines about the λ of a run: how many are alive, what the network alive costs, and what γ can do."""

from __future__ import annotations

import argparse
import logging
from typing import Any, Dict, List, Mapping

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import Complexity, complexity
from graphs.graph import Shape
from graphs.lambdas import lambda_layout
from runtime import mx

from .engines.interface import LambdaArrays
from .metrics import lambda_statistics


class StructureReport:
    """Counts and logs the structures of ``symbol`` that are alive; ``one_image`` is the shape of its input for a single
    image, by name.
    """

    def __init__(self, symbol: mx.sym.Symbol, one_image: Dict[str, Shape]) -> None:
        self._symbol = symbol
        self.full: Complexity = complexity(symbol, one_image)
        self.alive = AliveCounter(symbol, one_image)

    def at_end_of(self, epoch: int, lambdas: LambdaArrays) -> Dict[str, Any]:
        """Log λ and the network alive after ``epoch``; returns the part of the epoch's record in
        ``PREFIX-metrics.jsonl`` that is about them, {} without λ.
        """
        if not lambdas:
            return {}
        statistics = lambda_statistics(self._symbol, lambdas)
        for kind, found in statistics.items():
            stages = ', '.join(f'stage{stage} {alive}/{total}' for stage, (alive, total) in found['stages'].items())
            logging.info(
                'Epoch[%d] Lambda %s alive=%d/%d (%s) min=%.4g median=%.4g max=%.4g',
                epoch,
                kind,
                found['alive'],
                found['total'],
                stages,
                found['min'],
                found['median'],
                found['max'],
            )
        alive, full = self.alive(lambdas), self.full
        logging.info(
            'Epoch[%d] Structure alive params=%d (%.2f%%) macs=%d (%.2f%%)',
            epoch,
            alive.params,
            100 * alive.params / full.params,
            alive.macs,
            100 * alive.macs / full.macs,
        )
        values = {
            vector.name: {'stages': vector.stages, 'values': _rounded(lambdas[vector.name])}
            for vector in lambda_layout(self._symbol)
        }
        return {
            'lambda': statistics,
            'lambda_values': values,
            'alive': {'params': alive.params, 'macs': alive.macs},
            'full': {'params': full.params, 'macs': full.macs},
        }


def alive_in_words(record: Mapping[str, Any]) -> str:
    """'45 of 48 structures, 93 % of the MACs', from the ``record`` of an epoch (as ``at_end_of`` returns it, or what
    ``PREFIX-metrics.jsonl`` holds); '' without λ.
    """
    if 'lambda' not in record:
        return ''
    alive, total = (sum(kind[key] for kind in record['lambda'].values()) for key in ('alive', 'total'))
    return f'{alive} of {total} structures, {100 * record["alive"]["macs"] / record["full"]["macs"]:.0f} % of the MACs'


def log_averages(epoch: int, part: str, averages: Mapping[str, float]) -> None:
    """Log the averages of a ``Tally`` as MXNet does: ``Epoch[3] Train-accuracy=0.912345``."""
    for name, value in averages.items():
        logging.info('Epoch[%d] %s-%s=%f', epoch, part, name, value)


def log_gamma_budget(shrinkage: List[float]) -> None:
    """Log when γ alone would have shrunk λ from 1 to 0, by ``cumulative_shrinkage``. Before that, only structures that
    the loss also pushes down can be removed.
    """
    if shrinkage and shrinkage[-1] < 1:
        logging.info(
            'Gamma alone shrinks λ by %.2f (< 1): only structures that the loss also pushes down can be removed',
            shrinkage[-1],
        )
    elif shrinkage:
        logging.info(
            'Gamma alone shrinks λ from 1 to 0 in epoch %d',
            next(epoch for epoch, amount in enumerate(shrinkage) if amount >= 1),
        )


def advise(args: argparse.Namespace, symbol: mx.sym.Symbol, lambdas: LambdaArrays) -> None:
    """At the end of a run that was to remove structures and removed none, log what to try."""
    statistics = lambda_statistics(symbol, lambdas)
    if not statistics or any(kind['alive'] < kind['total'] for kind in statistics.values()):
        return
    if args.lambda_rule == 'subgradient':
        logging.info('Sub-gradients leave no λ exactly 0: strip with tools/strip_params.py --threshold')
        return
    logging.warning(
        'Every λ is alive, the smallest is %.3g: nothing can be stripped. Try a larger --gamma than %g (3 times is a '
        'good step), or more epochs at the first learning rate, since a step takes η γ from λ',
        min(kind['min'] for kind in statistics.values()),
        args.gamma,
    )


def _rounded(values: np.ndarray) -> List[float]:
    return [float(f'{value:.6g}') for value in np.ravel(values)]
