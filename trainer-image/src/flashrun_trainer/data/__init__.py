"""From the environment's dataset to tokens, completions and rewards."""
