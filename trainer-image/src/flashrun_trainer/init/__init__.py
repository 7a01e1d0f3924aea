"""The two init containers: they download the base model and the environment's packages."""
