"""Features: what the network is trained on, extracted once, by the encoders that run live."""
