"""The two init containers: the base model and the environment's packages."""
