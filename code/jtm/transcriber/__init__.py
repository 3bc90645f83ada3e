"""From a recording to notes: what is played, by which instrument, and the melody."""
