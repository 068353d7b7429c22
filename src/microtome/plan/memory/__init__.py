"""Memory of a sweep besides the weights: what is planned, and how a budget is spent."""
