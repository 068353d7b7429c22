"""The command line, files of experiments, the lab, and maps to click in a notebook."""
