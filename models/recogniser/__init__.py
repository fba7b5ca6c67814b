"""A small pretrained speech recogniser: its network, its graphs and its greedy decoder."""
