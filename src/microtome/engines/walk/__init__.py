"""The one-pass walk."""
