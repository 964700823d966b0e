"""Assets of the `sessions` room."""
