"""Names and indices: sites, selectors, addresses, regions. No torch."""
