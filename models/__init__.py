"""Networks, encoders and bundles: used by the trainer with torch and by the engine without."""
