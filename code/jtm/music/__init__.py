"""Symbols and signals: scores, MIDI, synthesis, sound files; numpy only, no torch."""
