"""Damage to bytes, and to the members of PyTorch's archives."""

import io
import zipfile

NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def mutated_bytes(rng, data, head=0.0):
    """``data`` with one to four damages: flipped bits, blown-up numbers, cuts, junk, splices. ``head``: how often they
    hit the first kilobyte.
    """
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = min(len(data), 1024) if rng.random() < head else len(data)
        place = rng.randrange(reach) if reach else 0
        rng.choice((_flip, _overwrite, _blow_up, _cut, _append, _splice, _insert))(rng, data, place)
    return bytes(data)


def mutated_archive(rng, data):
    """A PyTorch archive whose directory is sound but whose members are not."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w', rng.choice((0, 0, 0, 8))) as new:
        for name in old.namelist():
            member = old.read(name)
            if name.endswith('data.pkl') or rng.random() < 0.1:
                member = mutated_bytes(rng, member)
            if rng.random() < 0.98:
                # A fixed date: by default it is now, and the case could not be made again.
                new.writestr(zipfile.ZipInfo(name), member, new.compression)
    return out.getvalue()


def _flip(rng, data, place):
    if data:
        data[place] ^= 1 << rng.randrange(8)


def _overwrite(rng, data, place):
    data[place : place + 1] = bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])


def _blow_up(rng, data, place):
    size = rng.choice((2, 4, 8))
    place -= place % 4
    data[place : place + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, 'little')


def _cut(rng, data, place):
    del data[place : place + rng.choice((1, 4, 8, len(data)))]


def _append(rng, data, place):
    data += bytes(rng.choice((1, 8, 100)))


def _insert(rng, data, place):
    data[place:place] = rng.choice((b'\0', b'\xff', b'[', b'{"', b'9', b'\0' * 8))


def _splice(rng, data, place):
    start = rng.randrange(len(data) + 1)
    data[place:place] = data[start : start + rng.choice((4, 16, 64))]
