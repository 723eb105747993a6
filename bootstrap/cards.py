"""Which NVIDIA cards there are, and which of them MXNet's CUDA build has kernels for.

The driver's own library is asked, not ``nvidia-smi``: it numbers the cards as CUDA and MXNet do, follows
CUDA_VISIBLE_DEVICES, and exists in containers that lack the command.
"""

import ctypes
from typing import Callable, List, NamedTuple, Optional, Tuple

# What mxnet-cu112 1.9.1 was compiled for. It carries no PTX, so no driver can compile its kernels for a newer card.
COMPILED_FOR = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))

# The CUDA 11 libraries run on any driver of CUDA 11.0 (450.80) or later.
OLDEST_CUDA = (11, 0)

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Card(NamedTuple):
    """One graphics card: its name, and its compute capability as (major, minor)."""

    name: str
    capability: Tuple[int, int]

    def __str__(self) -> str:
        return '{} (sm_{}{})'.format(self.name, *self.capability)


class Driver(NamedTuple):
    """The NVIDIA driver: the newest CUDA version that it supports, as (major, minor), and its cards in CUDA's order."""

    cuda: Tuple[int, int]
    cards: List[Card]


class Choice(NamedTuple):
    """The MXNet to install, 'cpu' or 'cu112', and why."""

    mxnet: str
    reason: str


def has_kernels(card: Card) -> bool:
    """Whether MXNet's CUDA build runs on ``card``: code that was compiled for a compute capability runs on cards of the
    same major version and the same or a higher minor version.
    """
    major, minor = card.capability
    return any(major == compiled_major and minor >= compiled_minor for compiled_major, compiled_minor in COMPILED_FOR)


def choose(driver: Optional[Driver]) -> Choice:
    """The Choice of MXNet for a machine with ``driver``; None is a machine without one. One card with kernels is enough
    for the CUDA build.
    """
    if driver is None or not driver.cards:
        return Choice('cpu', 'no NVIDIA driver that shows a card here')
    served = [card for card in driver.cards if has_kernels(card)]
    if not served:
        return Choice('cpu', no_kernels(driver.cards[0]))
    if driver.cuda < OLDEST_CUDA:
        return Choice(
            'cpu',
            'the NVIDIA driver supports CUDA {}.{}, and MXNet needs 11.0 or later (driver 450.80)'.format(*driver.cuda),
        )
    return Choice('cu112', f'found {served[0]}')


def no_kernels(card: Card) -> str:
    """One clause that says why MXNet cannot use ``card``."""
    return f'MXNet 1.9.1 has kernels for sm_50 to sm_89 cards (Maxwell to Ada), none for {card}'


def driver(open_library: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> Optional[Driver]:
    """The NVIDIA Driver of this machine, or None where none answers. ``open_library`` loads a shared library
    by name.
    """
    try:
        cuda = open_library('libcuda.so.1')
        return _ask(cuda) if cuda.cuInit(0) == 0 else None
    except (OSError, AttributeError):
        return None


def _ask(cuda):
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    # CUDA writes 11.8 as 11080.
    return Driver(
        (version.value // 1000, version.value % 1000 // 10), [_card(cuda, index) for index in range(count.value)]
    )


def _card(cuda, index):
    device, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Card(name.value.decode(errors='replace'), (major.value, minor.value))
