"""TensorRT: its interface, the device, and plans: their shapes, how they are built and kept."""
