"""How λ and the weights move. Importing this package registers ``apg`` (and the authors' name ``apgnag``) with ``mx.optimizer``."""
import runtime  # noqa: F401  (first: a parameter server never returns from it, and must not leave .apg half imported)

from .apg import APG

__all__ = ['APG']
