"""What panels show: plain functions of a model, a prompt and texts of edits. No page is in here."""
