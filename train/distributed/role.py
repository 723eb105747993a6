"""Whether this process is a worker, or one that serves the workers."""

import os


def serve() -> None:
    """Where DMLC_ROLE says that this process is a server or the scheduler, serve and end the process; in a worker,
    return at once.
    """
    role = os.environ.get('DMLC_ROLE')
    if role in ('server', 'scheduler'):
        from .server import serve_as  # loads MXNet, which a worker does when it has read its command line

        serve_as(role)
