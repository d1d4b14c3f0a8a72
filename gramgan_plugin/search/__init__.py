"""Exact and approximate nearest neighbours, for the candidates of a crop and for a database alike."""
