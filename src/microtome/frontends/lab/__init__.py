"""The lab: maps to click, in a browser."""
