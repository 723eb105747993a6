"""How λ and the weights move. Importing this package registers ``apg`` (and the authors' name ``apgnag``) with
``mx.optimizer``.
"""

from .apg import APG

__all__ = ['APG']
