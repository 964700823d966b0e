"""Assets of the `dataset` room."""
