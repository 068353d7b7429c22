"""What is asked, cut into units, and what it costs. Pure: no torch, no transformers."""
