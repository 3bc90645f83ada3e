"""Symbols and signals: scores, MIDI, sound files; numpy only, no torch."""
