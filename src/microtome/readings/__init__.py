"""What is read off passes: metrics, on the output and inside the model; lens, shares, patterns."""
