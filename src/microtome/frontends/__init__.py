"""Command line and experiment files."""
