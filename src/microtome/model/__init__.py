"""Models: how they are loaded, where their sites are, and the proof of it."""
