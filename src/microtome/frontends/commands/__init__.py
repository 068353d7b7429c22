"""What the commands do, one module each; imported when one is called."""
