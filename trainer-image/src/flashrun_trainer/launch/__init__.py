"""Starts the worker processes of an attempt, on one node or several."""
