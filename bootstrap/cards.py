"""Which NVIDIA cards there are, and which of them MXNet's CUDA build has kernels for.

The driver's own library is asked, not ``nvidia-smi``: it numbers the cards as CUDA and MXNet do, heeds
CUDA_VISIBLE_DEVICES, and is there in containers that lack the command.
"""

import collections
import ctypes

# What mxnet-cu112 1.9.1 was compiled for. It carries no PTX, so no driver can compile its kernels for a newer card.
COMPILED_FOR = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))

# The CUDA 11 libraries run on any driver of CUDA 11.0 (450.80) or later.
OLDEST_CUDA = (11, 0)

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Card(collections.namedtuple('Card', 'name capability')):
    """One graphics card: its name, and its compute capability as (major, minor)."""

    __slots__ = ()

    def __str__(self):
        return '{} (sm_{}{})'.format(self.name, *self.capability)


Driver = collections.namedtuple('Driver', 'cuda cards')
Driver.__doc__ = (
    "The NVIDIA driver: the newest CUDA version it serves, as (major, minor), and its cards in CUDA's order."
)

Choice = collections.namedtuple('Choice', 'mxnet reason')
Choice.__doc__ = "The MXNet to install, 'cpu' or 'cu112', and why."


def has_kernels(card):
    """Whether MXNet's CUDA build runs on ``card``: compiled code serves its own major version, from its minor version
    upwards.
    """
    major, minor = card.capability
    return any(major == compiled_major and minor >= compiled_minor for compiled_major, compiled_minor in COMPILED_FOR)


def choose(driver):
    """The Choice of MXNet for a machine with ``driver`` (None: without one). One card with kernels is enough for the
    CUDA build.
    """
    if driver is None or not driver.cards:
        return Choice('cpu', 'no NVIDIA driver that shows a card here')
    served = [card for card in driver.cards if has_kernels(card)]
    if not served:
        return Choice('cpu', no_kernels(driver.cards[0]))
    if driver.cuda < OLDEST_CUDA:
        return Choice(
            'cpu',
            'the NVIDIA driver serves CUDA {}.{}, and MXNet needs one for 11.0 or later (driver 450.80)'.format(
                *driver.cuda
            ),
        )
    return Choice('cu112', f'found {served[0]}')


def no_kernels(card):
    """One clause that says why MXNet cannot use ``card``."""
    return f'MXNet 1.9.1 has kernels for sm_50 to sm_89 cards (Maxwell to Ada), none for {card}'


def driver(open_library=ctypes.CDLL):
    """The NVIDIA Driver of this machine, or None where there is none that answers."""
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
