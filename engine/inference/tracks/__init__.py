"""Tracks: one modality of one stream each, from its messages to projected frames by time."""
