"""Text simulation: audio in, frames of a text encoder or language model out."""
