"""From finished runs to a bundle and its figures."""
