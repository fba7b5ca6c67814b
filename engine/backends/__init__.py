"""Backends: one file each, all behind ``protocol.Backend``."""
