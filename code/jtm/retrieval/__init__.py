"""The retrieval study: audio and scores embedded in a joint space."""
