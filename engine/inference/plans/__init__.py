"""TensorRT plans: their shapes, how they are built, kept and checked."""
