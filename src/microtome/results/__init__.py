"""Effects, where they are kept, and what is needed to repeat them."""
