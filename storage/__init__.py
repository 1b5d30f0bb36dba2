"""Recordings on disk: WAV, info file, names."""
