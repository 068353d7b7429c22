"""Executors: what runs the cells of a plan, and what proves them."""
