"""The patch database: real textures as further candidates of the loss, and the search in them."""
