"""What a run asks of the group of its workers: ``rank`` and ``size``, the ``store`` that ``mx.mod.Module`` sums
gradients with, and what the others say.
"""


def compression_of(args):
    """MXNet's parameters of gradient compression, or None."""
    return None if args.gc_type == 'none' else {'type': args.gc_type, 'threshold': args.gc_threshold}


class Alone:
    """One process, with one device or several. ``store`` is MXNet's name of what sums over its devices."""

    rank, size = 0, 1
    is_synchronous = True
    updates_per_step = 1  # by the count of the optimizer, which schedules go by
    has_servers = False

    def __init__(self, store='local', compression=None):
        self.store, self.compression = store, compression

    def exchange(self, value):
        """What every worker gives for ``value``, by rank."""
        return [value]

    def total(self, sums):
        """Dicts of numbers, added up over the workers."""
        return sums

    def devices(self, contexts):
        """Those of this machine's ``contexts`` that this process computes on."""
        return contexts

    def begins(self, optimizer, names):
        """``optimizer`` is about to be set, to move the parameters ``names`` in this order."""

    def sum_gradients(self, arrays):
        """Sum the gradients ``arrays`` (of one device) over the workers, in place, where no kvstore does it."""

    def heartbeat(self):
        """This worker has done something, and is alive."""


ALONE = Alone()


class Workers(Alone):
    """What all groups of several workers share: a ``Watchdog`` and an ``Exchange``."""

    def exchange(self, value):
        self._watchdog.heartbeat()
        found = self._exchange.exchange(value)
        self._watchdog.heartbeat()
        return found

    def total(self, sums):
        parts = self.exchange(sums)
        return {name: sum(part[name] for part in parts) for name in sums}

    def heartbeat(self):
        self._watchdog.heartbeat()

    def finish(self):
        """Wait until all workers have finished."""
        self.exchange(None)
