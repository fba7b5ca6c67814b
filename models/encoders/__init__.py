"""Encoders: samples, crops or frames in, frames with times out."""
