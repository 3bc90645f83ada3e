"""The transcription study: notes, their instruments and the melody of a recording."""
