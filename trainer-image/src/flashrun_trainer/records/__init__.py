"""What an attempt writes to storage: claims, checkpoints, metrics, and how it has ended."""
