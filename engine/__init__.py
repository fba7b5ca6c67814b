"""The live side: capture, inference, and the supervisor over both."""
