"""Passes through a model: hooks, attention functions, traces. The only place that touches one."""
