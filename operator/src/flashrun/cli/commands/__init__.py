"""The commands of ``flash``, one module each, named as the command is typed."""
