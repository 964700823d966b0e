"""Assets of the `export` room."""
