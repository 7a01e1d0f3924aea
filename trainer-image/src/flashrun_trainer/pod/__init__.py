"""What the trainer knows about its pod, its processes and their errors."""
