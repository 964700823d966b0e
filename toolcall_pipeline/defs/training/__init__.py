"""Assets of the `training` room."""
