"""Approximations of a map by gradients: a fixed number of passes, however many cells."""
