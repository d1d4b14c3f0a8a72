"""The patch database: real textures that the loss may choose from, and the search in them."""
