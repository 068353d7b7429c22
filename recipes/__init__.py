"""How the data files shipped inside the package are made."""
