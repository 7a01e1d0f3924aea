"""WHAT a run is: the config, the custom resource, the records in storage. pydantic only, no I/O."""
