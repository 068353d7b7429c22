"""What a user does: load, run, sweep, read, write, trace."""
