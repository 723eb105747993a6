"""Prepare one image for a record: most files are kept as they are."""

import contextlib
import io
import warnings
from typing import Optional, Tuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

# What Pillow may try. Others are rare, and some (EPS) start programs.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP')
JPEG_FORMATS = ('JPEG', 'MPO')  # MPO: a JPEG with further pictures behind the first, as some cameras write


class Undecodable(Exception):
    """Why an image cannot be read."""


def prepared(data: bytes, short_side: Optional[int] = None, quality: int = 95) -> Tuple[bytes, Optional[str]]:
    """The bytes that go into the record for the file ``data``, and why it was encoded again, or None.

    A JPEG in grey or three colours stays as it is, unless its shorter side is to be ``short_side`` pixels and is not.
    Everything else (CMYK, a PNG whose name ends in .JPEG) becomes a JPEG in RGB of ``quality``, turned as its EXIF data
    says. Raises Undecodable.
    """
    with _opened(data) as image:
        oddity = None if _is_plain(image) else f'{image.mode} {image.format}'
        if oddity is None and short_side in (None, min(image.size)):
            # Decoding at an eighth of the size is faster and finds the same damage, since all of the file is read.
            image.draft('L', (1, 1))
            image.load()
            return data, None
        image.load()
        picture = _in_8_bits(_upright(image))
        if picture.mode != 'L' or oddity:
            picture = picture.convert('RGB')
        return _jpeg(_resized(picture, short_side or min(picture.size)), quality), oddity


def require_readable(data: bytes) -> None:
    """Raise Undecodable unless ``data`` is a whole JPEG in grey or three colours, which all readers of record files
    take.
    """
    with _opened(data) as image:
        if not _is_plain(image):
            raise Undecodable(f'a {image.mode} {image.format} is no JPEG in RGB or grey')
        image.load()


@contextlib.contextmanager
def _opened(data):
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing GluonCV switches it on for the whole process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about EXIF data that make no sense, and about large images
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                yield image
    except (MemoryError, Undecodable):
        raise
    except Image.UnidentifiedImageError:
        raise Undecodable(f'{len(data)} bytes that are no image') from None
    except Exception as error:  # Damaged images fail in Pillow in any way there is.
        raise Undecodable(str(error) or type(error).__name__) from None


def _is_plain(image):
    return image.format in JPEG_FORMATS and image.mode in ('L', 'RGB') and image.bits == 8


def _upright(image):
    """The image turned as its EXIF data says, as OpenCV's and MXNet's decoders turn it."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow fails on damaged EXIF data in any way there is; the pixels are fine.
        return image


def _in_8_bits(picture):
    """The upper byte of 16-bit grey, as OpenCV reads it: Pillow would take every value above 255 for white."""
    if not picture.mode.startswith('I'):
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _resized(picture, short_side):
    width, height = picture.size
    short = min(width, height)
    if short == short_side:
        return picture
    return picture.resize((round(width * short_side / short), round(height * short_side / short)), Image.BILINEAR)


def _jpeg(picture, quality):
    out = io.BytesIO()
    picture.save(out, 'JPEG', quality=quality)
    return out.getvalue()
