"""``basicsr ablate``: a grid of short trainings, and one report of them."""
