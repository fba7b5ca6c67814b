"""More than one worker: who holds which stream, and how the others take over. docs/scale.md."""
