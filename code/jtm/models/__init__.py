"""Networks and losses: torch modules only, no files, no loops."""
