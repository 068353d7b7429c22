"""What the lab says: a file for each panel, every text in every language side by side."""
