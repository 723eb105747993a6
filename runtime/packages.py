"""Large packages, which load when something of them is first used."""

from typing import TYPE_CHECKING

from .lazy import LazyModule

__all__ = ['Image', 'cv2', 'requests']

if TYPE_CHECKING:
    import cv2
    import requests
    from PIL import Image
else:
    Image, cv2, requests = map(LazyModule, ('PIL.Image', 'cv2', 'requests'))
