"""A dataset on disk, and the way from it to batches."""
