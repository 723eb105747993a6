"""From the bytes of an image file to pixels: damaged files are found, and only the part of a JPEG that is needed is
decoded.

OpenCV decodes the first half of a JPEG that was cut in two, without an error. So the structure of the file is checked
first, which takes a hundredth of the time.
"""

from typing import Literal, NamedTuple, Optional, Union

import numpy as np

from runtime.errors import DataError
from runtime.packages import cv2

JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
END_OF_IMAGE = b'\xff\xd9'
START_OF_SCAN, EXIF = 0xDA, 0xE1
BASELINE = (0xC0, 0xC1)
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length and data
REDUCED = {1: 'IMREAD_COLOR', 2: 'IMREAD_REDUCED_COLOR_2', 4: 'IMREAD_REDUCED_COLOR_4'}  # names of OpenCV's flags


class Frame(NamedTuple):
    """What the header of a baseline JPEG says: its size in pixels, the position of its height in the file, and how many
    rows are coded together.
    """

    height: int
    width: int
    height_at: int
    rows: int


def inspect(data: bytes) -> Optional[Frame]:
    """The Frame of a JPEG that can be decoded in part, None for an image that can only be decoded whole. Raises
    DataError for a broken JPEG or PNG.
    """
    if data.startswith(JPEG):
        return _frame(data)
    if data.startswith(PNG) and PNG_END not in data[-64:]:
        raise DataError('is a PNG that is cut off')
    return None


def decode(data: bytes, frame: Optional[Frame] = None, bottom: Optional[int] = None, reduction: int = 1) -> np.ndarray:
    """The pixels of an image file, uint8 (height, width, 3) in the order BGR; an orientation in its EXIF data is
    followed, as MXNet does.

    With its ``frame``, a JPEG may be decoded from the top to row ``bottom`` alone (some rows more may come), and at a
    ``reduction`` of 2 or 4 in both directions. Raises DataError where there is no image.
    """
    shortened: Union[bytes, bytearray] = data
    if frame is not None and bottom is not None:
        # A JPEG whose header says fewer rows is decoded only so far. One row more than asked for: the last one lacks
        # its neighbour's colour.
        rows = -(-(bottom + 1) // frame.rows) * frame.rows
        if rows < frame.height:
            shortened = bytearray(data)
            shortened[frame.height_at : frame.height_at + 2] = rows.to_bytes(2, 'big')
    try:
        image = cv2.imdecode(np.frombuffer(shortened, np.uint8), getattr(cv2, REDUCED[reduction]))
    except cv2.error as error:
        reason = error.err  # type: ignore[attr-defined]  # OpenCV's types lack it
        raise DataError(f'cannot be decoded: {reason}') from None
    if image is None:
        raise DataError('is no image that OpenCV can read')
    return image


def _frame(data) -> Optional[Frame]:
    place, has_exif = 2, False
    frame: Union[Frame, Literal[False], None] = None  # False: a kind that is only decoded whole
    try:
        while data[place + 1] != START_OF_SCAN or data[place] != 0xFF:
            if data[place] != 0xFF or data[place + 1] in (0x00, 0xFF):
                place += 1  # fill bytes, and rubbish that decoders pass over
                continue
            marker = data[place + 1]
            if marker in FRAMES:
                frame = _size(data, place) if marker in BASELINE else False
            has_exif |= marker == EXIF and data.startswith(b'Exif', place + 4)
            place += 2 if marker in ALONE else 2 + int.from_bytes(data[place + 2 : place + 4], 'big')
    except IndexError:
        raise DataError('is a JPEG that ends inside its header') from None
    if frame is None:
        raise DataError('is a JPEG without a size')
    if data.rfind(END_OF_IMAGE, place) < 0:
        raise DataError('is a JPEG that is cut off')
    # EXIF data may say that the image is to be turned, after which its bottom is elsewhere.
    return frame if frame and not has_exif else None


def _size(data, place):
    height, width, components = (
        int.from_bytes(data[place + 5 : place + 7], 'big'),
        int.from_bytes(data[place + 7 : place + 9], 'big'),
        data[place + 9],
    )
    sampling = max((data[place + 11 + 3 * component] & 15 for component in range(components)), default=0)
    if not (height and width and 0 < sampling <= 4):
        raise DataError('is a JPEG without a size')
    return Frame(height, width, place + 5, 8 * sampling)
