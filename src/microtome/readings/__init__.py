"""Metrics: numbers read off the output, and inside the model."""
