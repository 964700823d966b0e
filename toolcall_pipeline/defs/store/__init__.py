"""Assets of the `store` room."""
