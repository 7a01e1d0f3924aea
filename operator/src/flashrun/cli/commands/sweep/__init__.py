"""Commands of ``flash sweep``: a family of runs, so many at once."""
