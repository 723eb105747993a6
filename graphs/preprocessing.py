"""How an image becomes the input of a network, and what its classes are called: kept in the symbol itself.

The input of a trained symbol carries ``__preprocessing__``, a JSON text, beside ``__image_shape__``. Stripping and
conversion keep the attributes of the input, so nothing has to be told twice. ONNX and TorchScript files hold the text
as metadata.
"""

from __future__ import annotations

import copy
import json
import math
from typing import Any, Dict, NamedTuple, Optional, Tuple

from formats.symbol_limits import IMAGE_SHAPE, MAX_CHARACTERS
from runtime import mx
from runtime.errors import GraphError

PREPROCESSING = '__preprocessing__'
METADATA_KEY = 'preprocessing'
IMAGES = 'images'  # the name of a data set of image files, in folders or records
CENTRE = 'centre'
MAX_RESIZE = 1 << 16


class Preprocessing(NamedTuple):
    """What is done to an image before the network sees it.

    Its shorter side becomes ``resize`` pixels, and the centre of the network's image shape is cut out. Of pixels of
    0..255 the ``mean`` is subtracted, and the rest is divided by ``std``: one number, or one for each channel, RGB.

    ``classes`` are the names of the outputs, () where unknown; ``dataset`` is the data set that the network was trained
    on, a key of ``train.data.datasets.DATASETS`` or ``IMAGES``.
    """

    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    resize: int
    classes: Tuple[str, ...] = ()
    dataset: Optional[str] = None

    def to_text(self) -> str:
        """As JSON, in ASCII. Class names that would make a symbol too large are left out."""
        facts: Dict[str, Any] = {
            'dataset': self.dataset,
            'mean': [float(value) for value in self.mean],
            'std': [float(value) for value in self.std],
            'resize': self.resize,
            'crop': CENTRE,
            'classes': list(self.classes),
        }
        text = json.dumps(facts)
        return text if len(text) < MAX_CHARACTERS else json.dumps({**facts, 'classes': []})

    def name_of(self, label: int) -> str:
        """The name of class number ``label``."""
        return self.classes[label] if label < len(self.classes) else f'class {label}'


def parse_preprocessing(text: str, origin: str) -> Preprocessing:
    """The Preprocessing that ``to_text`` wrote. Raises GraphError, which begins with ``origin``, for any other text."""
    try:
        facts = json.loads(text)
        mean, std = (tuple(float(value) for value in facts[name]) for name in ('mean', 'std'))
        found = Preprocessing(mean, std, facts['resize'], tuple(facts['classes']), facts['dataset'])
        is_sound = (
            len(mean) in (1, 3)
            and len(std) in (1, 3)
            and all(map(math.isfinite, mean))
            and all(0 < value < math.inf for value in std)
            and isinstance(found.resize, int)
            and 0 < found.resize < MAX_RESIZE
            and all(isinstance(name, str) for name in found.classes)
            and isinstance(found.dataset, (str, type(None)))
            and facts['crop'] == CENTRE
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        is_sound = False
    if not is_sound:
        raise GraphError(f'{origin}: {PREPROCESSING} is damaged: it does not say how images are prepared')
    return found


def preprocessing_of(symbol: mx.sym.Symbol, origin: str = 'the symbol') -> Optional[Preprocessing]:
    """The Preprocessing of a symbol's images, None where it says none. Raises GraphError for a damaged text."""
    texts = [attributes[PREPROCESSING] for attributes in symbol.attr_dict().values() if PREPROCESSING in attributes]
    return parse_preprocessing(texts[0], origin) if texts else None


def with_preprocessing(
    symbol: mx.sym.Symbol, preprocessing: Optional[Preprocessing], image_shape: Tuple[int, ...] = ()
) -> mx.sym.Symbol:
    """A copy of ``symbol`` whose input (``data``, or else the first) carries ``preprocessing`` and, where given,
    ``image_shape`` (channels, height, width), in the place of what it carried before. Without ``preprocessing`` the
    symbol stays as it is.
    """
    if preprocessing is None:
        return symbol
    changed = copy.deepcopy(symbol)
    attributes = {PREPROCESSING: preprocessing.to_text()}
    if image_shape:
        attributes[IMAGE_SHAPE] = ','.join(map(str, image_shape))
    name = 'data' if 'data' in changed.list_arguments() else changed.list_arguments()[0]
    changed.get_internals()[name]._set_attr(**attributes)
    return changed


def without_preprocessing(text: str) -> str:
    """The JSON ``text`` of a symbol without what it says of images, their shape included: two that agree are the same
    network.
    """
    try:
        graph = json.loads(text)
        for node in graph['nodes']:
            for attributes in (node.get('attrs'), node.get('attr')):
                if isinstance(attributes, dict):
                    attributes.pop(PREPROCESSING, None)
                    attributes.pop(IMAGE_SHAPE, None)
                    if not attributes:
                        del node['attrs' if attributes is node.get('attrs') else 'attr']
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text
    return json.dumps(graph, sort_keys=True)
