"""Datasets on disk, and the pipeline from them to batches."""
