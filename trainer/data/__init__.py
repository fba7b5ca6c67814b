"""What the network is trained on: stored clips, samples, and the batches of an epoch."""
