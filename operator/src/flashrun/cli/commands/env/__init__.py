"""The commands of ``flash env``: environments, which define what a run learns from."""
