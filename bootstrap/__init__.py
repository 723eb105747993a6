"""Steps before installation: choose a Python and an MXNet, and fill ``.venv``. Standard library only."""
