"""Tools of developers, run as ``python -m tools.<name>``."""
