"""What a test lets a script take: so much memory and so much time, in this process and in those that it starts."""

import contextlib
import resource
import signal
from typing import Iterator

GB = 1 << 30
# Far above what any case takes: it only keeps a test that hangs from hanging for ever.
SECONDS = 60


class HungError(BaseException):
    """Not an Exception, so that no script takes it for an error of its own."""


@contextlib.contextmanager
def limited(memory: int = GB, seconds: int = SECONDS) -> Iterator[None]:
    """Let what runs inside take ``memory`` bytes more than this process has now, and ``seconds``: beyond them it gets
    a MemoryError, or a HungError.
    """

    def stop(*_):
        raise HungError

    with open('/proc/self/statm') as status:
        taken = int(status.read().split()[5]) * resource.getpagesize()  # data and stack
    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, before)
