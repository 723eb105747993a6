"""What ``tools/benchmark.py`` measures, one module per subcommand, and how: ``contest`` takes the times, ``report``
writes them down.
"""
