"""Symbols and signals: scores, MIDI, audio files; numpy only, no torch."""
