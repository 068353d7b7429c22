"""What a user does: load, run, sweep."""
