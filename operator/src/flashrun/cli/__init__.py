"""The command line: ``flash``, also ``flashrun`` and ``kubectl flash``; one file a subcommand."""

import gc

# What is imported stays: looking for garbage in it takes a tenth of the time of a short command.
gc.set_threshold(100_000, 20, 20)
