"""A browser's camera and microphone as a capture worker: its packets in, wire messages out."""
