"""Whether this process is a worker, or one that serves the workers."""

import os


def serve() -> None:
    """Serve, and end the process, where its environment says that it is no worker. A worker returns at once."""
    role = os.environ.get('DMLC_ROLE')
    if role in ('server', 'scheduler'):
        from .server import serve_as  # loads MXNet, which a worker does when it has read its command line

        serve_as(role)
