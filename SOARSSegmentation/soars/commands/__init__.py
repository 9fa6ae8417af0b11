"""One module for each `soars` command: ``add_parser(subparsers)`` and ``run(args)``."""
