"""Name that piece: audio and scores in one space, so that either finds the other."""
