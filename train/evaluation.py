"""The accuracy of a checkpoint on a data set: every image once, none twice."""

import json

import numpy as np
import tqdm

from runtime import mx
from runtime.errors import UserError

from .metrics import Tally


class Predictor:
    """A network for inference alone: batches in, class probabilities out.

    Parameters
    ----------
    symbol : a network with input ``data``, with or without a softmax head.
    arg_params, aux_params : its parameters; what they do not hold is taken for a label, and is not asked for.
    data_shape : (N, C, H, W) of the batches.
    contexts : devices; the CPU when left out.

    Raises UserError when the network does not take such images.
    """

    def __init__(self, symbol, arg_params, aux_params, data_shape, contexts=None):
        self._has_head = ends_in_softmax(symbol)
        try:
            shapes, outputs, _ = symbol.infer_shape(data=data_shape)
        except mx.base.MXNetError as error:
            raise UserError(
                f'the network does not take images of shape {data_shape[1:]}: {str(error).strip().splitlines()[-1]}'
            ) from None
        for name, shape in zip(symbol.list_arguments(), shapes):
            if name in arg_params and arg_params[name].shape != shape:
                raise UserError(
                    f'the network does not take images of shape {data_shape[1:]}: with them {name} would have shape '
                    f'{shape}, it has '
                    f'{arg_params[name].shape}'
                )
        labels = [
            (name, shape)
            for name, shape in zip(symbol.list_arguments(), shapes)
            if name not in arg_params and name != 'data'
        ]
        self.num_classes = outputs[0][1]
        self._module = mx.mod.Module(symbol, label_names=[name for name, _ in labels], context=contexts or [mx.cpu()])
        self._module.bind([('data', data_shape)], labels or None, for_training=False)
        self._module.set_params(arg_params, aux_params)

    def __call__(self, batch):
        """The class probabilities (N - pad, K) of a DataBatch, as a NumPy array."""
        self._module.forward(batch, is_train=False)
        outputs = self._module.get_outputs()[0]
        probabilities = outputs if self._has_head else mx.nd.softmax(outputs)
        return probabilities.asnumpy()[: batch.data[0].shape[0] - (batch.pad or 0)]


def ends_in_softmax(symbol):
    """Whether a symbol's output are probabilities; a stripped network ends in logits."""
    graph = json.loads(symbol.tojson())
    return graph['nodes'][graph['heads'][0][0]]['op'] in ('SoftmaxOutput', 'softmax', 'Softmax')


def score(predict, iterator, top_k=0, progress=None):
    """(averages by name, number of images) of ``predict``, a function from DataBatch to class probabilities, over an
    iterator of ``eval_iterator``.
    """
    tally = Tally(top_k)
    iterator.reset()
    for batch in tqdm.tqdm(
        iterator, desc=progress, total=len(iterator), unit='batch', leave=False, disable=None if progress else True
    ):
        probabilities = predict(batch)
        tally.add(probabilities, np.asarray(batch.label[0].asnumpy()[: len(probabilities)]))
    return tally.averages(), tally.count
