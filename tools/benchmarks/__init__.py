"""What ``tools/benchmark.py`` measures, one module per subcommand, and how: ``alternating`` takes the times, ``report``
writes them down.
"""
