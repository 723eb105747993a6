"""What runs before anything is installed: choosing a Python and an MXNet, and filling ``.venv``. Standard library only."""
