"""What several commands do with the cluster and its storage."""
