"""Assets of the `evaluation` room."""
