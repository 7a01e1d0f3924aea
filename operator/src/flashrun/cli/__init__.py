"""The command line: ``flash``, also ``flashrun`` and ``kubectl flash``; one file a subcommand."""
