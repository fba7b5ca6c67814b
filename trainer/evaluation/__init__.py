"""How good a trained network is: predictions, figures, intervals, report and card."""
