"""The commands of ``flash model``."""
