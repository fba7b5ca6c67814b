"""Inference: from captured sound and faces to rolling scores."""
