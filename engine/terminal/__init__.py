"""What draws in a terminal: formatting of scores, and the displays of ``run``."""
