"""Command-line programs, each run from the repository's root as ``python -m scripts.NAME``.

A program is a thin ``main(argv) -> int``: data to stdout, progress to stderr, exit code 0 when
done, 1 when failed, 2 when misused. Modules with a leading underscore serve the programs.
"""
