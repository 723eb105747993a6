"""Several workers in one run: groups, messages between them, supervision."""
