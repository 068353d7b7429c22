"""What the studies say: one file a study, every text in every language side by side."""
