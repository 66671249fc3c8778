"""What makes a network smaller or faster while it trains: pruning, quantisation, distillation."""
