"""What an attempt leaves in storage: claims, checkpoints, metrics, how it ended."""
