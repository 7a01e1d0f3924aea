"""Environments on the user's machine: template, package, check."""
