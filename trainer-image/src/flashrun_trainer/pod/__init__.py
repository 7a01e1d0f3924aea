"""What the trainer knows about its pod: mounts, processes, packages, log, secrets and errors."""
