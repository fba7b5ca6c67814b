"""Text of a stream: given by a client, or simulated from what is spoken."""
